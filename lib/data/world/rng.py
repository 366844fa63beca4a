"""Random streams by name, and hashes that do not change between versions."""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["digits", "generator", "hash_pairs", "unique_codes"]


def generator(seed: int, *name: str | int) -> np.random.Generator:
    """An independent stream for each name: adding one leaves the others as they are.

    >>> int(generator(1, "a").integers(100)) == int(generator(1, "a").integers(100))
    True
    """
    words = hashlib.sha256("/".join(str(part) for part in (seed, *name)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(words[:16], "little")))


def hash_pairs(a: NDArray[np.int64], b: NDArray[np.int64] | int, salt: int) -> NDArray[np.uint64]:
    """A 64-bit hash of pairs of integers (the finaliser of SplitMix64)."""
    salted = np.uint64((salt * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
    with np.errstate(over="ignore"):  # wrapping is the point
        x = np.asarray(a).astype(np.uint64) * np.uint64(0xD1342543DE82EF95) + salted
        x = x ^ (np.asarray(b).astype(np.uint64) * np.uint64(0xAF251AF3B0F025B5))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(x ^ (x >> np.uint64(31)), dtype=np.uint64)


def digits(values: NDArray[np.uint64], width: int, alphabet: str) -> NDArray[np.bytes_]:
    """Each value in an alphabet, ``width`` characters.

    >>> digits(np.array([5, 36], np.uint64), 3, "0123456789").tolist()
    [b'005', b'036']
    """
    letters = np.frombuffer(alphabet.encode(), dtype=np.uint8)
    base = np.uint64(len(letters))
    text = np.empty((len(values), width), dtype=np.uint8)
    rest = values.copy()
    for place in range(width - 1, -1, -1):
        text[:, place] = letters[(rest % base).astype(np.int64)]
        rest //= base
    return np.ascontiguousarray(text).view(f"S{width}").reshape(-1)


def unique_codes(count: int, width: int, alphabet: str, salt: int) -> NDArray[np.bytes_]:
    """``count`` different codes that look random: multiplication by a unit permutes the space."""
    space = len(alphabet) ** width
    if count > space:
        raise ValueError(f"{count} codes of {width} letters asked, at most {space}; widen them")
    factor = (0x9E3779B1 * (2 * salt + 1)) % min(space, 2**36)
    while np.gcd(factor, space) != 1:
        factor += 1
    mixed = (np.arange(count, dtype=np.int64) * factor + 0x5DEECE66D * (salt + 1)) % space
    return digits(mixed.astype(np.uint64), width, alphabet)
