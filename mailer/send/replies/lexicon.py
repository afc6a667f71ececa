"""The lexicon of replies: words for things, and words for states of these things.

A word that ends in `*` matches all words with that beginning; `?` stands for a blank. A word after `not`
counts only if one of NEGATIONS precedes it shortly. If entries overlap, the longest counts.
"""

NEGATIONS = """
    not no never neither nor without lacks non unable failed can't cannot couldn't cant didn't doesn't doesnt
    dosn't don't dont do'nt isn't wasn't weren't won't aren't hasn't nicht kein keine pas ne nao nie nem
    """

THINGS = {
    # Ours: the session, the host, the account.
    "login": """
        user?pass auth authenti* authorization authorisation login logon log?in logged sign?in credential*
        password* passwort user?name username sasl oauth token api?key mechanism identity anonymous passwd
        """,
    "relay": "relay relays relaying relayed gateway rcpthosts open?relay",
    "hello": "helo ehlo helohost greeting hello hostname host?name fqdn",
    "our host": """
        ip ips rdns ptr reverse?dns reverse dns?name network netblock subnet range geoip country client
        client?host remotehost your?mta sending?mta sending?server mail?server server?ip sender?ip isp asn
        dialup dial?up dsl location your?host dynamic residential proxy remote?ip your?system your?server
        your?mail?system
        """,
    "ip address": "<ip>",
    "ill fame": """
        rbl rbls dnsbl* rhsbl* blacklist* blocklist* black?list* block?list* denylist* <list> spamhaus
        reputation karma honeypot honeypod prison spammer blackhole spamcop sorbs barracudacentral
        uceprotect complaints open?relay openrelay sbrs senderbase abuseat
        """,
    "greylisting": "greylist* graylist* grey?list* gray?list* postgrey",
    "encryption": "tls ssl starttls encrypt* cipher certificate",
    "connection": """
        connection* connect connects concurren* session* simultaneous parallel pipelin* synchron* pregreet
        handshake too?many?errors too?many?commands
        """,
    "allowance": """
        quota limit limits ratelimit* rate rates frequency throttl* allowance credit* volume traffic
        limite limiti limites limiten kontingent cuota contingent
        hourly daily weekly monthly per?hour per?day per?minute per?second past?# last?# today balance
        bandwidth pace burst fast faster quickly frequently
        """,
    "account": """
        account accounts subscription plan license licence billing payment trial sandbox your?ability
        smtp?access submission customer* tenant outgoing outbound
        configuration?set compte konto cuenta conta versand envio envios envoi envois invio invii
        """,
    "trade": """
        reseller* subscription subscriptions plan plans license licenses licence licences billing payment
        payments trial tier contract contracts prepaid invoice* sandbox customer* upgrade unpaid
        contact?list contacts
        """,
    # The mail: its proof of origin, its sender, its form, its content.
    "proof": "spf dkim dmarc senderid domainkeys forgery forged spoof* impersonat* dkim?signature",
    "signature": "arc signature signatures alignment aligned signed",
    "sender": """
        sender senders sender's from mail?from mailfrom return?path reverse?path envelope?from originator
        sender?address from?address your?address absender expediteur emetteur remitente mittente remetente
        nadawca spam?domain spam?sender
        """,
    "content": """
        content spam* antispam junk* ube uce unsolicited bulk virus viruses malware phish* trojan worm
        scam fraud* suspicious infected filtered quarantin* profan* offensive obscene porn* advert*
        pattern keyword word words sensitive uribl surbl regular?expression regex
        """,
    "utf8": "smtputf8 utf8 non?ascii",
    "form": """
        header headers mime line lines lf cr line?feed linefeed newline charset encoding 8bit multipart
        boundary crlf newlines 8bitmime encoded null?byte* nul field fields rfc syntax compliant
        from?header date?header subject message?id json xml duplicate standard standards
        """,
    "attachment": """
        attachment* file files filename extension executable* archive archives zip zips macro* file?type
        password?protected
        """,
    "size": "size large big bigger larger long length bytes kb mb megabytes stream",
    "loop": "loop loops looping hop hops",
    # The recipient.
    "mailbox": """
        mailbox* mail?box mail?folder mailfolder maildir inbox email?account mail?account local?part alias
        storage?space postfach boite casella buzon caixa skrzynka
        """,
    "recipient": """
        recipient* rcpt rcptto rcpt?to addressee* receiver* destinatario* destinataire* empfanger
        empfaenger mailing?list list route
        """,
    "user": "user person employee student nobody utilisateur utente usuario benutzer uzytkownik",
    "recipients": "recipients rcpts users addresses one?recipient",
    "path": "@",
    "address": """
        address* mail?address adresse adres* indirizzo direccion email?address e?mail?address
        """,
    "email": "email emails e?mail",
    "domain": "domain* tld mx nxdomain",
    # The server.
    "server": """
        server service system disk disks space storage memory database queue spool filter filters scanner
        load resource* backend ldap mysql lookup internal local?problem local?error configuration
        temporary?error milter antivirus maintenance directory policy?service ports hardware dns software
        upstream mailer cluster partition socket api?request script procmail sieve pipe agent transport
        daemon engine technical?problem temporary?problem
        """,
    "command": """
        requiretls command* syntax parameter* argument* sequence protocol verb keyword option extension
        extensions smtp rfc mail?command rcpt?command data?command
        """,
    # The texts that Postfix puts before those of policy services and other servers, whatever these are about.
    "preface": "@?recipient?address?rejected recipient?address?rejected delivery?error relay?<ip> subject?to",
    "policy": "policy policies access administrat* prohibition",
    "message": """
        message messages mail mails msg letter body data text processing nachricht courrier mensaje
        messaggio
        """,
}

ABSENCES = "no without missing lacks kein keine aucun non"
"""Words that, directly before a thing, mean that it is unknown."""

STATES = {
    "unknown": """
        unknown unavailable null nonexist* inexist* invalid bad improper illegal malformed wrong incorrect
        unresolv* unrout* undeliver* unreachable missing absent unregistered undefined unlisted no?such
        no?longer bogus violates wrong* nobody deleted removed departed unbekannt inconnu* sconosciut*
        desconocid* unparse* unparsa* reserved unconfigured stray bare naked lone restricted?character*
        obsolete dead defunct defect* unrecognized unrecognised introuvable
        existiert?nicht not exist* not esist* not found not gefunden not trov* not trouv* not encontr*
        not used not valid not deliverable not local not known not listed not registered
        not configured not hosted not here not user not resolv* not in not contain* not have
        not recognized not recognised not handled not exists not parse* not given not compliant not reach*
        not comply not complies
        """,
    "disabled": """
        disabled suspend* inactive locked frozen closed terminated deactivated discontinued hangup on?hold
        revoked expired restricted cancelled paused unpaid compromised archived abandoned retired moved
        unsubscribed out?of?service suspendu* suspendid* sospes* gesperrt deaktiviert
        desactiv* disattivat* disabilitat* bloccat* bloque* bloquead*
        not active not enabled not activated
        """,
    "listed": """
        blacklisted black?listed blocklisted block?listed denylisted in?blacklist in?the?blacklist
        """,
    "unverified": """
        unverified unvalidated unconfirmed
        not verified not validat* not confirmed
        """,
    "full": """
        full over exceed* overquota exhausted reached out?of used?up insufficient over?quota overflow voll
        pleine lleno piena cheia esaurit* agotad* depasse* superad* superat* excedid* excedeu uberschritten
        ueberschritten erreicht atteint* raggiunt* alcanzad*
        not enough
        """,
    "refused": """
        reject* refus* denied deny denies decline* forbidden prohibit* unwanted unacceptable unauthorized
        unauthorised filtered discarded dropped disallowed unwilling violat* abus* restricted bounced
        unwelcome prevented untrusted trapped flagged classified considered poor low prison
        not accept* not allow* not permit* not welcome not liked not like not want* not authorized
        not authorised not receiv* not trusted not open not pass* not entitled not interested
        not whitelist*
        """,
    "banned": "block blocked banned black blacklisted listed denylisted",
    "too much": """
        too more?than larger?than only excessive slow slower high max maximum unusual abnormal overly many
        """,
    "broken": """
        temporary?error temporary?problem technical?problem local?problem local?error error errors failure
        failures fail fails failed problem busy down timeout timed?out fault crash* overload* shortage
        insufficient lost unavailable temporary temporarily incomplete unexpected unqueuable stopped
        abort* interrupted malfunction* out?of?memory shutting closing restart* degraded congest* retry
        try?again* try?later unreachable low maintenance exception
        trouble abruptly
        not save* not stor* not process* not load not creat* not writ* not complet* not scan* not verify
        not saved not available not running not respon* not data
        """,
    "required": """
        require* must need needs needed necessary first mandatory missing specify supply turn?on
        """,
    "mismatch": """
        mismatch* differ* match* belong* owned equal equals same identical identity one?of?your
        not conform*
        """,
    "unsupported": """
        unsupported unimplemented unrecognized unrecognised
        not support* not implement* not recognized not recognised not defined
        """,
}

COMPLAINTS = ", ".join(STATES)
"""All states: anything that a refusal can say of a thing."""
