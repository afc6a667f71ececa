<?php
// Submits one message through a sendmail program with Symfony's mailer: ARGUMENTS: the command, the subject.
require "/usr/share/php/Symfony/Component/Mailer/autoload.php";
require "/usr/share/php/Symfony/Component/Mime/autoload.php";

use Symfony\Component\Mailer\Mailer;
use Symfony\Component\Mailer\Transport;
use Symfony\Component\Mime\Email;

$transport = Transport::fromDsn("sendmail://default?command=" . rawurlencode($argv[1]));
$mail = (new Email())->from("ann@example.com")->to("bob@example.net")->bcc("eve@example.org");
(new Mailer($transport))->send($mail->subject($argv[2])->text(".\n..two\nlast"));
