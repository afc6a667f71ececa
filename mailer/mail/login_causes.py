"""Recognize why a login fails: causes that providers have names for, and what to do about each.

A table of plain values. Its input is a text: a server's reply, followed by the mechanism if a token was
refused, or, if no token could be had, `no access token from HOST: ...`. The first row that matches counts, so
the specific rows come first.

Sources: Microsoft, "Microsoft Entra authentication and authorization error codes", "Authenticate an IMAP, POP
or SMTP connection using OAuth", "Resolve Microsoft Graph authorization errors"; Google, "Using OAuth 2.0 for
Server to Server Applications", "Resolve errors" (of the Gmail API); RFC 6749 5.2, RFC 8628 3.5.
"""

import re
import shlex

import msgspec

from mailer.mail.lazy_pattern import compile_late

NO_TOKEN = "no access token"  # noqa: S105 - the beginning of a message
"""The prefix of a text when no token could be had; ` from HOST: WHY` follows it."""

BY_TOKEN = "by access token"  # noqa: S105 - the same
"""The suffix of a text: the reply answered a login with a token."""

_AGAIN = "then type `mailer providers reset {typed}` and `mailer spool retry --all`."
_BY_ITSELF = "sending resumes by itself."


class Cause(msgspec.Struct, frozen=True):
    """One reason why logins fail."""

    name: str
    """A one-word identifier, for programs."""
    sign: re.Pattern[str]
    """Matches the texts that this cause explains."""
    what: str
    """The cause in plain words."""
    todo: str
    """What to do; `{name}` is replaced by the provider's name, `{typed}` by the same quoted for a shell."""

    def advice(self, provider: str) -> str:
        """Return what to do about this cause at a provider."""
        return self.todo.format(name=provider, typed=shlex.quote(provider))


def _cause(name: str, sign: str, what: str, todo: str) -> Cause:
    text = " ".join(todo.split()).replace("{again}", _AGAIN).replace("{by itself}", _BY_ITSELF)
    return Cause(name, compile_late(sign, re.IGNORECASE), what, text)


def _clock_skew(sign: str) -> Cause:
    return _cause(
        "clockSkew",
        sign,
        "the clock of this host is wrong",
        "Set the clock (`timedatectl`, chrony): a signed request holds for minutes only; {by itself}",
    )


CAUSES = (
    _clock_skew("AADSTS700024|reasonable timeframe|Signature (expired|not yet current)|RequestTimeTooSkewed"),
    _cause(
        "refreshTokenUnused",
        "AADSTS700082",
        "the login has ended: its refresh token was not used for 90 days",
        "With grant deviceCode type `mailer auth login {typed}`, else write a new `refreshToken` and type "
        "`mailer reload`; {again}",
    ),
    _cause(
        "conditionalAccess",
        r"AADSTS70043|AADSTS53003|AADSTS5007[69]|interaction_required",
        "the directory's rules (Conditional Access) have ended the login",
        """Have the directory's administrator exempt this application from the rule (sign-in frequency, second
        factor, location), then log in anew: with grant deviceCode by `mailer auth login {typed}`, else by a
        new `refreshToken` and `mailer reload`; {again}""",
    ),
    _cause(
        "clientSecretExpired",
        "AADSTS7000222",
        "the client secret has expired",
        """Make a new client secret in the application's registration (Certificates & secrets), write its
        value into `clientSecret`, type `mailer reload`; {again}""",
    ),
    _cause(
        "clientSecretWrong",
        "AADSTS7000215",
        "the client secret is wrong",
        """Write the secret's value into `clientSecret`, not its id; where the value is lost, make a new
        secret (Certificates & secrets); type `mailer reload`; {again}""",
    ),
    _cause(
        "certificateUnknown",
        r"AADSTS700027|AADSTS700023",
        "the certificate is not registered for the application",
        """Upload the certificate of `auth.certificate` to the application's registration (Certificates &
        secrets), or name the one that is there; type `mailer reload`; {again}""",
    ),
    # After the rows above: if the server names a clear reason, that counts, whatever the clocks show.
    _clock_skew(r"this host's clock is \d+"),
    _cause(
        "loginRefused",
        "the user has refused|the code has expired",
        "the login was not completed",
        "Type `mailer auth login {typed}` again, and agree to what is asked; {by itself}",
    ),
    _cause(
        "consentMissing",
        r"AADSTS65001|consent_required|access_denied|unauthorized_client",
        "the application is not allowed to do this",
        """Have the administrator grant it: Microsoft SMTP.SendAsApp (for users SMTP.Send) with admin consent,
        Google domain-wide delegation of https://mail.google.com/ to the service account; {again}""",
    ),
    _cause(
        "invalidClient",
        r"invalid_client|AADSTS700016|AADSTS90002",
        "the application is not known there, or its secret is refused",
        "Compare `clientId`, `tenant`, `clientSecret` with the registration, type `mailer reload`; {again}",
    ),
    _cause(
        "invalidScope",
        r"invalid_scope|AADSTS70011|AADSTS1002012",
        "the scope is refused",
        """Write the scope that the provider documents for this grant into `scope`, or use a preset; type
        `mailer reload`; {again}""",
    ),
    _cause(
        "loginNeeded",
        "no login is stored",
        "no user has logged in yet, or the login was removed",
        "Type `mailer auth login {typed}`; {by itself}",
    ),
    _cause(
        "invalidGrant",
        "invalid_grant",
        "the login was withdrawn or has expired",
        """With grant deviceCode type `mailer auth login {typed}`; with refreshToken write a new one (a
        changed password ends the old one) and type `mailer reload`; for a service account compare user,
        scope and delegation with what the administrator allowed; {again}""",
    ),
    _cause(
        "untrustedCertificate",
        rf"{NO_TOKEN}.*certificate is not trusted",
        "the token server's certificate is not trusted",
        """Are ca-certificates installed, and is the clock right? Where a proxy opens TLS, have the system
        trust its authority (/usr/local/share/ca-certificates, update-ca-certificates); {by itself}""",
    ),
    _cause(
        "dns",
        rf"{NO_TOKEN}.*(name or service not known|name resolution|no address associated)",
        "the token server's name cannot be looked up",
        "Look at `tokenUrl` and at /etc/resolv.conf; {by itself}",
    ),
    _cause(
        "tokenServerDown",
        rf"""{NO_TOKEN}.*(refused|timed out|in time|unreachable|no route|reset|disconnected|answered 5\d\d|"""
        "answered 429|the proxy answered|temporarily_unavailable)",
        "the token server does not answer",
        """Does a firewall let this host out to port 443, or does it need a proxy (HTTPS_PROXY in the runner's
        environment)? Once it answers, {by itself}""",
    ),
    _cause(
        "secretUnavailable",
        rf"{NO_TOKEN}: \$",
        "a secret for the login cannot be used",
        "Correct what the message names; {by itself}",
    ),
    _cause(
        "noMechanism",
        "(XOAUTH2|OAUTHBEARER) is not offered",
        "the server does not accept access tokens",
        """Set `host` and `port` to the provider's for OAuth 2.0 (smtp.office365.com 587, smtp.gmail.com 587)
        or use a preset; type `mailer reload`; {again}""",
    ),
    _cause(
        "smtpAuthDisabled",
        r"5\.7\.139.*disabled for the (tenant|mailbox)",
        "SMTP AUTH is switched off for the tenant or the mailbox",
        """Have the administrator allow SMTP AUTH, whatever the login: Set-CASMailbox -Identity MAILBOX
        -SmtpClientAuthenticationDisabled $false, and for the tenant Set-TransportConfig
        -SmtpClientAuthenticationDisabled $false; wait 15 minutes, {again}""",
    ),
    _cause(
        "basicLoginRemoved",
        # 550 5.7.30 alone does not suffice: Google also uses it for mail without DKIM.
        r"basic authentication is (disabled|not supported)",
        "the server no longer accepts logins with a password",
        "Log in with OAuth 2.0: set `auth` of this provider to type oauth2 (mailer guide providers); {again}",
    ),
    _cause(
        "mailboxPermission",
        r"430 4\.2\.0|mailbox logon failure|MapiExceptionLogonFailed",
        "the application is not allowed to open the mailbox",
        """Give it the mailbox: Add-MailboxPermission -Identity MAILBOX -User OBJECT-ID -AccessRights
        FullAccess, with the service principal's object id (Entra shows it under Enterprise applications,
        not under App registrations); {again}""",
    ),
    _cause(
        "permission",
        rf"535 5\.7\.3\b.*{BY_TOKEN}",
        "the token is refused: permission, service principal or scope",
        """Check the application permission SMTP.SendAsApp (Office 365 Exchange Online) with admin consent;
        the service principal (New-ServicePrincipal, Add-MailboxPermission, with the object id of Enterprise
        applications); the scope https://outlook.office365.com/.default; and that `username` is that
        mailbox.
        Changes take up to an hour; {again}""",
    ),
    _cause(
        "awsKeyRefused",
        "HTTP 403 (UnrecognizedClient|InvalidClientTokenId|InvalidSignature|SignatureDoesNotMatch|"
        "ExpiredToken|IncompleteSignature|MissingAuthenticationToken)",
        "AWS does not know the access key, or the secret is not the one of this key",
        """Write an active access key into `username`, and its secret into `password` (not the ones for SMTP,
        which are made from them); is `region` right? Type `mailer reload`; {again}""",
    ),
    _cause(
        "sendingPaused",
        "AccountSuspended|SendingPaused",
        "AWS has paused or suspended the account's sending",
        "Read in the SES console why, and have it lifted; {again}",
    ),
    _cause(
        "noAwsKeys",
        "^no AWS keys",
        "there are no keys to sign requests with",
        """Set `username` and `password`, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the runner's
        environment, or attach a role to the instance; {by itself}""",
    ),
    _cause(
        "apiPermission",
        r"HTTP 403 .*(AccessDenied|RequestDenied|insufficient|PERMISSION_DENIED|forbidden)",
        "the application is not allowed to send as this mailbox",
        """Have the administrator allow it: Microsoft the application permission Mail.Send (Microsoft Graph)
        with admin consent, for this mailbox; Google the Gmail API and the scope of gmail.send for the service
        account; AWS ses:SendEmail and ses:SendRawEmail for the identity. Changes take up to an hour;
        {again}""",
    ),
    _cause(
        "apiKeyRefused",
        "HTTP 401 (Forbidden|Unauthorized|no reason|Invalid private key)",
        "the interface refuses our API key",
        """Write the domain's sending key or the account's API key into `password`; for Mailgun in the EU set
        `apiUrl` to https://api.eu.mailgun.net, for keys of one region are not known in the other; type
        `mailer reload`; {again}""",
    ),
    _cause(
        "apiDomain",
        "HTTP 40[0-4] .*(domain not found|not allowed to send|authorized recipients)",
        "the sending domain is not known there, or may not send yet",
        """Set `username` to the sending domain as the provider lists it, and verify that domain there;
        `apiUrl` must be of its region; {again}""",
    ),
    _cause(
        "apiTokenRefused",
        "HTTP 401 .*(InvalidAuthenticationToken|authError|UNAUTHENTICATED)",
        "the interface refuses our access token",
        """Is `scope` the one for this interface (https://graph.microsoft.com/.default, gmail.send), and
        `apiUrl` of the same cloud as `tokenUrl`? `mailer auth test {typed}` tries a new token; {again}""",
    ),
    _cause(
        "apiMailbox",
        "HTTP 40[04] .*(MailboxNotEnabled|InvalidUser|ResourceNotFound|ExistentMailbox|failedPrecondition)",
        "the mailbox is not known there, or has no mail service",
        "Set `username` to the mailbox that is to send, and have it licensed for mail; {again}",
    ),
    _cause(
        "tokenRefused",
        BY_TOKEN,
        "the server refuses our access token",
        """Is `username` the mailbox that the token is for, and `scope` the one for SMTP? `mailer auth test
        {typed}` tries a new token; {again}""",
    ),
    _cause(
        "noToken",
        f"^{NO_TOKEN}",
        "there is no access token",
        "Read what the token server says; `mailer auth test {typed}` asks it again.",
    ),
)


def cause_of(text: str) -> Cause | None:
    """Return the cause that a text names; None: the text is not about a login, or the cause is not known."""
    return next((cause for cause in CAUSES if cause.sign.search(text)), None)
