<?php
// Submits one message with PHPMailer; the order comes as JSON on standard input.
require '/usr/share/php/libphp-phpmailer/autoload.php';

$order = json_decode(stream_get_contents(STDIN), true);
$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$mail->isSMTP();
$mail->Host = $order['host'];
$mail->Port = $order['port'];
$mail->SMTPAuth = true;
$mail->Username = $order['user'];
$mail->Password = $order['pass'];
if ($order['ca']) {
    $mail->SMTPSecure = PHPMailer\PHPMailer\PHPMailer::ENCRYPTION_STARTTLS;
    $mail->SMTPOptions = ['ssl' => ['cafile' => $order['ca']]];
}
$mail->setFrom($order['from'], 'Mailer');
$mail->addAddress($order['to'], 'Joe User');
$mail->addBCC('bcc@example.com');
$mail->isHTML(true);
$mail->Subject = 'Here is the subject';
$mail->Body = 'This is the HTML message body <b>in bold!</b>';
$mail->AltBody = 'This is the body in plain text for non-HTML mail clients';
$mail->send();
