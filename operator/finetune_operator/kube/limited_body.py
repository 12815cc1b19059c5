"""Reads an answer of the API server that may be too large for the memory."""

import aiohttp


async def body_within(response: aiohttp.ClientResponse, most: int | None) -> bytes | None:
    """The body of a response. Its connection is closed when it is not read to its end.

    Args:
        response: the response, of which nothing is read yet.
        most: largest size in bytes; None for no limit.

    Returns:
        The body. None if it is larger; then the rest is not read.

    Raises:
        aiohttp.ClientError: the body was cut.
        TimeoutError: it took too long.
    """
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if most is not None and len(body) > most:
                response.close()
                return None
    except BaseException:
        # Left to the garbage collector, the connection may be found before its response, and is an ERROR in the log.
        response.close()
        raise
    return bytes(body)
