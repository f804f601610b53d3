"""What went wrong with a server, in a person's words.

Nothing that obstore says is passed on: its messages may hold signed addresses. The server's own
code tells, else the kind of the error, a sign in its message, or the status.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import re

from audioset_core.errors import AudioError, Reason

NO_CREDENTIALS = "there are no credentials in the environment (docs/object-storage.md)"
# What errors are made of: an error itself keeps the frames in which it was raised.
GONE = (Reason.VANISHED, "it was listed, but no longer exists")
OTHER_VERSION = (Reason.CHANGED, "another version since it was listed; the next run tries it again")
ODD_KEY = (
    Reason.UNREADABLE,
    "its key has an empty name, '.', '..' or a control character; copy the object to another key",
)

_HALF = "the credentials in the environment are not complete"
_RENEWED = "renew them, and run again"
_WORDS = {
    "ExpiredToken": f"the credentials have expired: {_RENEWED}",
    "TokenRefreshRequired": f"the credentials have expired: {_RENEWED}",
    "InvalidToken": f"the session token is refused: {_RENEWED}",
    "InvalidAccessKeyId": "the access key is not known to the server",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "AuthenticationFailed": "the credentials are refused",
    "AccessDenied": "access is denied",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "NoSuchBucket": "there is no such bucket",
    "ContainerNotFound": "there is no such container",
    "InvalidBucketName": "that cannot be the name of a bucket",
    "InvalidObjectState": "the object is archived: restore it first",
    "BlobArchived": "the object is archived: restore it first",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "SlowDown": "the server asks for fewer requests",
}
_SIGNS = (
    ("dns error", "there is no such server, or no network"),
    ("Connection refused", "no server answers at that address"),
    ("tcp connect error", "no server answers at that address"),
    ("without LOCATION", "the bucket is in another region: set AWS_REGION"),
    ("InvalidCertificate", "the server's certificate is not trusted"),
    ("timed out", "the server did not answer in time"),
    ("169.254.169.254", NO_CREDENTIALS),
    ("metadata.google", NO_CREDENTIALS),
    ("MissingAccount", "AZURE_STORAGE_ACCOUNT_NAME is not set"),
    ("MissingAccessKeyId", _HALF),
    ("MissingSecretAccessKey", _HALF),
)


def told(error: Exception) -> AudioError:
    """What went wrong, without the words of the library, which may hold secrets."""
    import obstore

    if isinstance(error, AudioError):
        return error
    text = str(error)
    found = re.search(r"<Code>(\w+)</Code>", text)
    code = found[1] if found else ""
    if code not in _WORDS:
        if isinstance(error, FileNotFoundError):
            return AudioError(*GONE)
        if isinstance(error, obstore.exceptions.PreconditionError):
            return AudioError(*OTHER_VERSION)
        if isinstance(error, ValueError | obstore.exceptions.InvalidPathError):
            return AudioError(*ODD_KEY)
    status = re.search(r"status code: (\d{3})", text)
    words = _WORDS.get(code) or next((words for sign, words in _SIGNS if sign in text), None)
    if words is None and status:
        words = f"the server answers {status[1]}" + (f" ({code})" if code else "")
        words = "access is denied" if status[1] in ("401", "403") else words
    return AudioError(Reason.UNREADABLE, words or "the connection to the server broke off")
