"""Configuration of access tokens for a provider (OAuth 2.0, RFC 6749)."""

from datetime import UTC, datetime
from enum import StrEnum

from mailer.config.key_types import Group
from mailer.config.secrets import Secret


class Kind(StrEnum):
    """The type of an object under `auth`."""

    OAUTH2 = "oauth2"


class Grant(StrEnum):
    """How a token is requested."""

    CLIENT_CREDENTIALS = "clientCredentials"
    """As the application itself (RFC 6749 4.4)."""
    REFRESH_TOKEN = "refreshToken"  # noqa: S105 - the name of a grant
    """As a user who has given consent elsewhere (RFC 6749 6)."""
    DEVICE_CODE = "deviceCode"
    """As a user who gives consent through `mailer auth login` (RFC 8628)."""
    SERVICE_ACCOUNT = "serviceAccount"
    """As the mailbox's user, by a signed assertion (RFC 7523 2.1)."""


class Preset(StrEnum):
    """Providers whose hosts, URLs and scopes are built in; see `presets`."""

    MICROSOFT365 = "microsoft365"
    MICROSOFT365_GCC_HIGH = "microsoft365-gcc-high"
    MICROSOFT365_DOD = "microsoft365-dod"
    MICROSOFT365_CHINA = "microsoft365-china"
    GOOGLE = "google"

    @property
    def microsoft(self) -> bool:
        return self is not Preset.GOOGLE


class TokenMechanism(StrEnum):
    """The SASL mechanism for a token (XOAUTH2 of Google and Microsoft, or RFC 7628)."""

    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"


class Algorithm(StrEnum):
    """How an assertion is signed (RFC 7518 3.3, 3.5)."""

    PS256 = "PS256"
    RS256 = "RS256"


class OAuth2(Group, frozen=True, kw_only=True):
    """An object under `auth`: log in with an access token, never with a password."""

    type: Kind
    grant: Grant
    preset: Preset | None = None
    """Supplies those of `host`, `tokenUrl`, `deviceUrl` and `scope` that are missing."""
    tenant: str = ""
    """The Microsoft directory, by id or by one of its domains; it becomes part of the preset's URLs."""
    token_url: str = ""
    device_url: str = ""
    """The device authorization endpoint, where `mailer auth login` begins."""
    client_id: str = ""
    client_secret: Secret = Secret("")
    certificate: Secret = Secret("")
    """PEM of a certificate and its private key, instead of a client secret (RFC 7523 2.2)."""
    algorithm: Algorithm = Algorithm.PS256
    """The signature algorithm of the certificate's key."""
    scope: str = ""
    refresh_token: Secret = Secret("")
    """The initial refresh token; a replacement from the server is stored in the spool's `state/`."""
    service_account: Secret = Secret("")
    """The JSON key file of a service account, as Google issues it."""
    mechanism: TokenMechanism | None = None
    """None: the first that the server offers."""
    username: str = ""
    """Must equal the provider's `username`, which is the one that is used."""
    expires: str = ""
    """The day on which the secret or certificate expires, `2027-01-31`, if only the operator knows it."""

    def record(self, account: str) -> str:
        """Return the key under which its tokens are stored; an account may be used with several settings."""
        return f"{account} {self.grant} {self.token_url} {self.client_id} {self.scope}"

    @property
    def ends(self) -> float | None:
        """The start of the day `expires`, in seconds since the epoch; None: it is missing or invalid."""
        try:
            return datetime.strptime(self.expires, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
        except ValueError:
            return None
