// Submits one message with net/smtp, as its documentation's example does; the order comes as JSON on standard input.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/smtp"
	"os"
)

func main() {
	var order struct {
		Host, User, Pass, From, To string
		Port                       int
	}
	if err := json.NewDecoder(os.Stdin).Decode(&order); err != nil {
		log.Fatal(err)
	}
	auth := smtp.PlainAuth("", order.User, order.Pass, order.Host)
	msg := []byte("To: " + order.To + "\r\nSubject: discount Gophers!\r\n\r\nThis is the email body.\r\n")
	err := smtp.SendMail(fmt.Sprintf("%s:%d", order.Host, order.Port), auth, order.From, []string{order.To}, msg)
	if err != nil {
		log.Fatal(err)
	}
}
