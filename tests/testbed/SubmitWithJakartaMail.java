import java.util.Properties;
import javax.mail.Message;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeMessage;

/** Submits one message with Jakarta Mail: HOST PORT USER PASSWORD FROM TO, and "starttls" for TLS. */
class SubmitWithJakartaMail {
    public static void main(String[] order) throws Exception {
        Properties props = new Properties();
        props.put("mail.smtp.host", order[0]);
        props.put("mail.smtp.port", order[1]);
        props.put("mail.smtp.auth", "true");
        if (order.length > 6) {
            props.put("mail.smtp.starttls.required", "true");
            props.put("mail.smtp.ssl.checkserveridentity", "true");
        }
        Session session = Session.getInstance(props);
        MimeMessage msg = new MimeMessage(session);
        msg.setFrom(new InternetAddress(order[4]));
        msg.setRecipients(Message.RecipientType.TO, order[5]);
        msg.setSubject("Jakarta Mail hello world example");
        msg.setText("Hello, world!\n");
        Transport.send(msg, order[2], order[3]);
    }
}
