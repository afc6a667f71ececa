"""The text of `mailer-sendmail --help`, in a module of its own because sending mail does not need it."""

HELP = """\
Usage: mailer-sendmail [OPTION]... [--] [RECIPIENT]...
       mailer-sendmail -t [OPTION]... < MESSAGE
       mailq | newaliases                the same program by other names

Hand a message on standard input to the receiver (`mailer serve`), as sendmail(8) does.

  -t               send to the addresses in To, Cc and Bcc, and to each RECIPIENT
  -i               a line with only a dot does not end the message (also -oi)
  -f, -r ADDRESS   the envelope's sender; <> is the empty one; without: your login
  -F NAME          the name in the From field, if the message has none
  -N WHEN          notify the sender: never, or a list of success, failure, delay
  -R full|hdrs     how much of the message comes back in a notification
  -V ID            an envelope id, which comes back in notifications
  -v               print the id of the queued message
  -bs              speak SMTP on standard input and output
  -bv              check each RECIPIENT, and print the receiver's reply; send nothing
  -bp              list the queue (mailq)
  -bi              do nothing: aliases are in the configuration (newaliases)
  -q               make one pass over the queue
  -h, --help       this text, as the only argument
  --version        the version, as the only argument

Options end at the first argument that is not one. Options that only tune a mail server are ignored.

The receiver listens at /run/mailer/submit.sock (`submitSocket`); $MAILER_SUBMIT_SOCKET names another
place. When none runs, root and the spool's owner write to the spool themselves, by the configuration
that $MAILER_CONFIG names or the one in /etc/mailer; other users leave the message in its drop directory,
/run/mailer-drop, /var/spool/mailer/drop or $MAILER_DROP, for the next receiver to take in as theirs.

Exit codes:
   0  the message is on disk          67  a recipient is refused; nobody gets the message
  64  wrong usage                     75  try again later; the text says if the receiver may have it
  65  the message is refused          76  no mail server listens at the socket
  77  this user may not do that

Examples:
  printf 'Subject: hello\\n\\nworld\\n' | mailer-sendmail -v root
  mailer-sendmail -t -i < message.eml
  mailer-sendmail -bv root bob@example.net
"""
