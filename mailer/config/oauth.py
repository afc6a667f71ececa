"""The part of the model that says how to get an access token for a provider (OAuth 2.0, RFC 6749)."""

from datetime import UTC, datetime
from enum import StrEnum

from mailer.config.kinds import Group
from mailer.config.secrets import Secret


class Kind(StrEnum):
    """What an object as `auth` is."""

    OAUTH2 = "oauth2"


class Grant(StrEnum):
    """How a token is asked for."""

    CLIENT_CREDENTIALS = "clientCredentials"
    """As the application itself (RFC 6749 4.4)."""
    REFRESH_TOKEN = "refreshToken"  # noqa: S105 - the name of a grant
    """As a user who has agreed elsewhere (RFC 6749 6)."""
    DEVICE_CODE = "deviceCode"
    """As a user who agrees by `mailer auth login` (RFC 8628)."""
    SERVICE_ACCOUNT = "serviceAccount"
    """As the mailbox's user, by a signed assertion (RFC 7523 2.1)."""


class Preset(StrEnum):
    """Providers whose hosts, addresses and scopes are known; see `presets`."""

    MICROSOFT365 = "microsoft365"
    MICROSOFT365_GCC_HIGH = "microsoft365-gcc-high"
    MICROSOFT365_DOD = "microsoft365-dod"
    MICROSOFT365_CHINA = "microsoft365-china"
    GOOGLE = "google"

    @property
    def microsoft(self) -> bool:
        return self is not Preset.GOOGLE


class TokenMechanism(StrEnum):
    """How a token is shown to a provider (Google's and Microsoft's own, RFC 7628)."""

    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"


class Algorithm(StrEnum):
    """How an assertion is signed (RFC 7518 3.3, 3.5)."""

    PS256 = "PS256"
    RS256 = "RS256"


class OAuth2(Group, frozen=True, kw_only=True):
    """`auth` as an object: log in with an access token, never with a password."""

    type: Kind
    grant: Grant
    preset: Preset | None = None
    """Fills in whatever of `host`, `tokenUrl`, `deviceUrl` and `scope` is not written."""
    tenant: str = ""
    """Microsoft's directory, by its id or one of its domains; a part of the preset's addresses."""
    token_url: str = ""
    device_url: str = ""
    """Where `mailer auth login` begins."""
    client_id: str = ""
    client_secret: Secret = Secret("")
    certificate: Secret = Secret("")
    """Instead of a secret: PEM, a certificate and its private key (RFC 7523 2.2)."""
    algorithm: Algorithm = Algorithm.PS256
    """How the certificate's key signs."""
    scope: str = ""
    refresh_token: Secret = Secret("")
    """The first one; what the server puts in its place is kept in the spool's `state/`."""
    service_account: Secret = Secret("")
    """The service account's key file, JSON, as Google makes it."""
    mechanism: TokenMechanism | None = None
    """None: the first that the server offers."""
    username: str = ""
    """The same as the provider's, which counts."""
    expires: str = ""
    """The day on which the secret or the certificate ends, `2027-01-31`: where only the operator knows."""

    def record(self, account: str) -> str:
        """Return what its tokens are kept by: the same account may be logged in to in two ways."""
        return f"{account} {self.grant} {self.token_url} {self.client_id} {self.scope}"

    @property
    def ends(self) -> float | None:
        """When that day begins, in seconds since the epoch; None: it is not written, or is not a day."""
        try:
            return datetime.strptime(self.expires, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
        except ValueError:
            return None
