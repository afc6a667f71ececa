"""Rows about our session and our host: the EHLO name, the address and its reputation, session limits.

These replies say nothing about the message: every other message would be refused as well.
"""

from mailer.send.replies.reading import About
from mailer.send.replies.row import Row

_STANDING = "Our address is refused, or its reputation is bad, so every mail would be refused."

HELLO = (
    Row(
        About.SESSION,
        """
        (helo*|ehlo*)
        greeting ~ (rejected|invalid|denied|refused|required|failed|not|listed|name|bad|mismatch|is|
            syntax|argument|forged|blocked|spamhaus|error)
        (invalid|bad|bogus|forged|illegal|malformed|missing|reject*|wrong|your|fake|unacceptable) (helo|
            ehlo|greeting)
        (host|hostname|host name|host names|client name) ~ (dns label|fully qualified|fqdn|dot|qualified)
        (need|must be|not) ~ (fully qualified|fqdn) (hostname|host|name|domain name)
        polite people say hello
        (bad|invalid|illegal|unacceptable) (host ?name|host name)
        your (host ?name|host name) ~ (not|invalid|bad|unacceptable|wrong)
        """,
        unless="auth not ~ (helo|ehlo)",
        reason="The name that we say in EHLO (`hostname`) is refused.",
        source="Postfix: 504 5.5.2 <vm>: Helo command rejected; Exim: 550 Access Denied - Invalid HELO name",
    ),
    Row(
        About.SESSION,
        codes=r"50[14]|55\d",
        phases=frozenset({"ehlo"}),
        reason="The name that we say in EHLO (`hostname`) is refused.",
        source="RFC 5321 4.1.4",
    ),
)

LIMITS = (
    Row(
        About.SESSION,
        """
        hl (rep|icc|ifc|mep|ihu|ipb|itc|ifq)
        (mi|rp) (cel|ccl|dmc|drc)
        dt rbl
        wm bli
        mi nhd
        """,
        reason="The address, its sessions or its name in EHLO are refused, by the provider's own code.",
        source="NetEase (163, 126): its list of replies; HL: of the host, CEL, CCL: commands, RBL: blocklist",
    ),
    Row(
        About.SESSION,
        """
        too many ~ (connection|connections|sessions|session|clients)
        (connection|connections|session|sessions|concurrency) (\\S+ )?(limit|limits|exceeded|quota)
        (concurrent|simultaneous|parallel) ~ (limit|limits|exceeded|connections|sessions|reached)
        (max|maximum|limit) ~ (connection|connections|sessions|session)
        (messages?|emails?|mails?|recipients?|transactions?|count) ~ (per|in this|on this|for this|
            in one) (connection|session)
        too many ~ (per|in this|on this|for this|in one) (connection|session)
        (session|connection) ~ (expired|timed out|too long|timeout)
        (time ?out|timeout) exceeded
        (time ?out|timeout|timed out) waiting for (client|your|a command|command|input|data)
        idle (timeout|too long|connection|session)
        (maximum|max|limit) ~ (on|in|for) this (connection|session)
        (allowable|allowed|maximum) connection time
        (try reconnecting|please reconnect|reconnect)
        """,
        unless="rate\nfrequen*",
        reason="This session, or the number of our sessions, has reached the server's limit.",
        source="Yahoo: 421 Max message per connection reached; SES, Stalwart, Microsoft 365",
    ),
    Row(
        About.SESSION,
        """
        too many ~ (errors|commands|failures|failed|unknown|invalid|bad|unrecognized|non ?mail)
        """,
        unless="recipients ~ per\nlogin\nauth*",
        reason="The server closes the session after too many refusals.",
        source="Postfix: 421 4.7.0 Error: too many errors",
    ),
)

STANDING = (
    Row(
        About.SESSION,
        """
        (black|block|deny|ban|reject|spam) ?(list|lists|listing)
        (listed|found|list|listing|present|entry|appears) (at|in|by|on|as|from) (\\S+ ){0,6}(*dnsbl|rbl|
            list|lists|org|net|zen|xbl|sbl|pbl|css|blocklist|blacklist)
        (*dnsbl|*rbl|rbls)
        is listed (by|at|on|in)
        (<list>|spamhaus|spamcop|sorbs|barracudacentral|uceprotect|realtime block list|spammer list|
            senderbase|senderscore|abuseat|junkemailfilter|abusix|invaluement|backscatterer|spamrats|mailspike)
        """,
        unless="blocklist ~ (url|link)\nsuppression list\nrecipient ~ (not|never|doesn't) want",
        reason=_STANDING,
        source="Spamhaus, SORBS, SpamCop and others, in the words of those who ask them",
    ),
    Row(
        About.SESSION,
        """
        (client|connecting|your|sending|remote) (host|hosts|server|mail server|ip|address) ~ (rejected|
            blocked|refused|denied|banned|listed|reputation|not allowed)
        host network not allowed
        client ~ (blocked|rejected|not allowed|banned)
        no access from mail server
        open ?relay
        you are not allowed to connect
        """,
        unless="relay* ~ denied",
        reason=_STANDING,
        source="Postfix: 554 5.7.1 Client host rejected",
    ),
    Row(
        About.SESSION,
        """
        (ip|<ip>|ips|network|range|subnet|netblock) ~ (block*|bann*|rejected|denied|refused|not allowed|
            forbidden|reputation|not in whitelist|not permitted|bloque*|gesperrt|spammer|suspicious)
        (banned|blocked|rejected|bad|poor|spamming|suspicious|untrusted|black|dirty|unknown) ~ (ip|<ip>)
        (block*|bann*|refus*|reject*|denied|deny) (\\S+ ){0,2}<ip>
        (ip|ip address) check
        ip based
        (ip|<ip>|ips) (address )?(is|was|has|have|in|on|does|doesn't|not|isn't)
        (host|client|server|mta|relay) (\\S+ ){0,6}<ip> (from|is|has|was|in|on|not|no|does|doesn't|black|
            without)
        (messages|mail|email|mails) from <ip> ~ (not|weren't|blocked|rejected|refused)
        your (ip|network|server|isp)
        """,
        unless="""
            spf
            dkim
            dmarc
            relay* ~ (denied|prohibited|not)
            sender policy framework
            to this ip
            recipient address rejected (\\S+ ){0,2}(unverified|undeliverable|user)
            """,
        reason=_STANDING,
        source="Microsoft 365: 550 5.7.606 banned sending IP; Mail.ru; GoDaddy",
    ),
    Row(
        About.SESSION,
        """
        (poor|bad|low|negative|worst|questionable) ~ reputation
        reputation ~ (poor|bad|low|too low|problem)
        (email|ip|sender|server|network) reputation
        reputation of ~ (ip|server|host|address|sender)
        """,
        unless="(sending|from|sender|sender's|your) domain",
        reason=_STANDING,
        source="Mimecast, Cloudmark, Gmail: reputation of the address",
    ),
    Row(
        About.SESSION,
        """
        reverse (dns|lookup|mapping|name|hostname|record)
        (rdns|ptr|fcrdns)
        (name|address|host|hostname) lookup (failed|failure)
        no reverse
        (cannot|can't|unable to|couldn't|not) ~ (resolve|find) your (hostname|host|address|ip|domain|
            reverse)
        unverifiable sending
        without a valid sender domain
        may not be mail exchanger
        (generic|dynamic|residential|dial ?up|dynamically) ~ (hostname|rdns|ip|address|addresses|pool|
            range|host|user|customers?)
        (hostname|host name) ~ (resolve|lookup|verified|match)
        host (can't|cannot|could not|couldn't) be (resolved|verified)
        dns # <url>
        """,
        unless="""
            recipient domain
            mx lookup
            recipient address rejected (\\S+ ){0,3}(unverified|undeliverable)
            """,
        reason=_STANDING,
        source="Comcast, Gmail, IronPort: the address has no reverse DNS",
    ),
    Row(
        About.SESSION,
        """
        connections? (\\S+ )?(not|never|no longer)? ?(be )?(accepted|refused|denied|rejected|blocked|
            dropped)
        connections not accepted
        traffic (is )?not (accepted|allowed) from
        (spam|abuse|attack) (\\S+ ){0,4}(from|by|through) (your|this) (ip|host|server|network|address|
            range|mta)
        (all|your) (messages|mail|email|mails) from <ip>
        permanently deferred
        (missing|no|lacks?) ~ (reverse dns|ptr|rdns)
        (blocked|block|blocking) (for|due to|because of) (spam|abuse|spamming|complaints)
        (your|this) access to (this|the|submit)
        (mta|mta's|mail server|server|host) ~ reputation
        (your|sending|this) (mta|server|host|mail server|system) ~ (rejected|refused|blocked|not welcome|
            unwanted)
        (trop de|zu viele|demasiadas|troppe) (connexions|verbindungen|conexiones|connessioni)
        not (allowed|permitted|authorized) to connect
        no access (for|from) (this|your) (ip|host|address|network|server)
        connection (from|by) (<ip>|your|this)
        sending (\\S+ )?(spam|unsolicited)
        mail from this (range|network|host|server|ip)
        blocked for spamm*
        (geoip|geo ip|geographical location)
        from (your|this|that) (country|network|location|region|host|server)
        a problem occurred ~ ask your postmaster
        problem occurred
        attempting to (mail|send) too many
        (dictionary|directory|harvest*) (harvest* )?attack
        (early talk*|pregreet*|synchroni(z|s)ation error|before (the )?greeting|talk* too soon)
        (dialup|dial up|dsl|cable|residential|dynamic) (\\S+ )?(user|users|host|hosts|pool|line|connection)
        """,
        unless="recipient address rejected\nnetwork connection\nspam (domain|sender)",
        reason=_STANDING,
        source="Yahoo, T-Online, GoDaddy: connections from this address are not accepted",
    ),
    Row(
        About.SESSION,
        """
        must issue a starttls
        (starttls|tls|ssl|encryption) ~ (required|first|needed|mandatory)
        requires? (starttls|tls|ssl|encryption|a secure)
        """,
        reason="The server accepts mail over TLS only.",
        source="RFC 3207 4: 530 Must issue a STARTTLS command first",
    ),
)
