// Submits many messages by several connections at once, with AUTH PLAIN; the password comes on standard input.
// Talks as a careful client does: one command, one reply (RFC 5321), and a group where nothing is lost by it.
package main

import (
	"bufio"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

var (
	address  = flag.String("address", "127.0.0.1:25", "the server")
	clients  = flag.Int("clients", 16, "connections at a time")
	messages = flag.Int64("messages", 1000, "messages in all")
	size     = flag.Int("size", 2048, "octets of a message")
	reuse    = flag.Bool("reuse", false, "send many messages by each connection")
	username = flag.String("username", "", "of the login")
	from     = flag.String("from", "app@example.com", "sender")
	to       = flag.String("to", "bob@example.net", "recipient")
)

type session struct {
	conn   net.Conn
	reader *bufio.Reader
}

// expect reads one reply and ends the program unless its code is as wanted.
func (s *session) expect(code string) {
	for {
		line, err := s.reader.ReadString('\n')
		if err != nil {
			log.Fatal(err)
		}
		if !strings.HasPrefix(line, code) {
			log.Fatalf("wanted %s, got %s", code, line)
		}
		if len(line) < 4 || line[3] != '-' {
			return
		}
	}
}

func (s *session) say(command, code string) {
	if _, err := io.WriteString(s.conn, command+"\r\n"); err != nil {
		log.Fatal(err)
	}
	s.expect(code)
}

func open(credentials string) *session {
	conn, err := net.Dial("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	s := &session{conn, bufio.NewReader(conn)}
	s.expect("220")
	s.say("EHLO client.example.com", "250")
	s.say("AUTH PLAIN "+credentials, "235")
	return s
}

func (s *session) send(message []byte) {
	s.say("MAIL FROM:<"+*from+">", "250")
	s.say("RCPT TO:<"+*to+">", "250")
	s.say("DATA", "354")
	if _, err := s.conn.Write(message); err != nil {
		log.Fatal(err)
	}
	s.expect("250")
}

func (s *session) close() {
	s.say("QUIT", "221")
	s.conn.Close()
}

func body() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <%s>\r\nDate: Sun, 22 Nov 2026 21:45:01 +0000\r\nMessage-Id: <bench@example.com>\r\nSubject: bench\r\n\r\n", *from, *to)
	for b.Len() < *size {
		b.WriteString("XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX\r\n")
	}
	return append([]byte(b.String()[:*size-2]), "\r\n.\r\n"...)
}

func main() {
	flag.Parse()
	secret, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	credentials := base64.StdEncoding.EncodeToString([]byte("\x00" + *username + "\x00" + string(secret)))
	message := body()
	var taken int64
	var all sync.WaitGroup
	for i := 0; i < *clients; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			var s *session
			for atomic.AddInt64(&taken, 1) <= *messages {
				if s == nil {
					s = open(credentials)
				}
				s.send(message)
				if !*reuse {
					s.close()
					s = nil
				}
			}
			if s != nil {
				s.close()
			}
		}()
	}
	all.Wait()
}
