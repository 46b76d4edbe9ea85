"""S3 with credentials that change: short-lived keys, rotated files, tokens that expire while a run goes on."""

from typing import Any

from s3fs import S3FileSystem

from infra import conditional

REFUSALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "TokenRefreshRequired",
        "RequestExpired",
        "InvalidToken",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "AuthFailure",
        "403",  # all that an answer without a body tells, such as one to HEAD
        "Forbidden",
    }
)
"""What servers answer to keys that hold no longer. Rights that a valid key lacks are ``AccessDenied``."""


class RenewingS3(S3FileSystem):
    """Reads credentials anew, wherever they come from, when the server refuses those it has, and asks once more."""

    async def _call_s3(self, method: str, *lists: Any, **named: Any) -> Any:
        used = await self.set_session()
        try:
            return await super()._call_s3(method, *lists, **named)
        except Exception as error:
            if not _refused(error):
                raise
        await self._renew(used)
        return await super()._call_s3(method, *lists, **named)

    async def _lsdir(self, *what: Any, **named: Any) -> Any:
        """Listings go past ``_call_s3``."""
        used = await self.set_session()
        try:
            return await super()._lsdir(*what, **named)
        except Exception as error:
            if not _refused(error):
                raise
        await self._renew(used)
        return await super()._lsdir(*what, **named)

    async def _renew(self, used: Any) -> None:
        """Unless another call has done so since."""
        if self._s3 is used:
            await self.set_session(refresh=True)


def _refused(error: Exception) -> bool:
    return conditional.answer_of(error).get("Error", {}).get("Code") in REFUSALS
