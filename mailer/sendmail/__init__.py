"""`mailer-sendmail`, the sendmail(8) interface: a small client of the receiver's `submitSocket`.

cron, PHP and git start it for each mail, so it imports very little: no configuration, no click, no
dataclasses (which import `inspect`, 15 ms). The receiver makes all decisions about a mail.
"""
