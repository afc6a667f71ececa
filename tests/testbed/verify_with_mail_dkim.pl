# Verifies messages with Mail::DKIM. Usage: perl verify_with_mail_dkim.pl NAMESERVER PORT < MESSAGES
# Each message on standard input comes after a line with its length in bytes. For each, one line is printed:
# the result of every signature, as SELECTOR=RESULT, separated by blanks.
use strict;
use warnings;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS::Resolver;

my ($host, $port) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => [$host], port => $port, recurse => 1));
binmode STDIN;
$| = 1;
while (my $length = <STDIN>) {
    chomp $length;
    my $message = '';
    my $got = read(STDIN, $message, $length);
    die "a message is cut short\n" unless $got == $length;
    my $dkim = Mail::DKIM::Verifier->new();
    $dkim->PRINT($message);
    $dkim->CLOSE();
    print join(' ', map { $_->selector . '=' . $_->result } $dkim->signatures), "\n";
}
