"""Reads an answer of the API server that may be too large for the memory."""

import aiohttp


async def body_within(response: aiohttp.ClientResponse, most: int | None) -> bytes | None:
    """The body of a response.

    Args:
        response: the response, of which nothing is read yet.
        most: largest size in bytes; None for no limit.

    Returns:
        The body. None if it is larger; then the rest is not read, and the connection is closed.
    """
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if most is not None and len(body) > most:
            response.close()
            return None
    return bytes(body)
