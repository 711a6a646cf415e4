"""Keys that two clients agree on, sealed messages between them, and the words of their masks.

The cryptography is that of the package `cryptography` (the extra `privacy`): X25519, HKDF with
SHA-256, AES-256 in GCM and in counter mode, Ed25519.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from fljax.core import optional
from fljax.privacy.secagg.masks import mask_words

KEY_BYTES = 32
NONCE_BYTES, TAG_BYTES = 12, 16
SIGNATURE_BYTES = 64

# (32 bytes, number of words) -> uint32[words]
Expand = Callable[[bytes, int], np.ndarray]


class ProtocolError(ValueError):
    """A message that a protocol's party refuses; the text says whose, and why.

    Example:
      >>> issubclass(ProtocolError, ValueError)
      True
    """


@functools.cache
def _modules() -> SimpleNamespace:
    """Returns the modules of `cryptography` that the protocols use."""
    with optional.needed("cryptography"):
        from cryptography import exceptions
        from cryptography.hazmat.primitives import ciphers, hashes
        from cryptography.hazmat.primitives.asymmetric import ed25519, x25519
        from cryptography.hazmat.primitives.ciphers import aead
        from cryptography.hazmat.primitives.kdf import hkdf
    return SimpleNamespace(
        exceptions=exceptions, ciphers=ciphers, hashes=hashes, ed25519=ed25519, x25519=x25519,
        aead=aead, hkdf=hkdf,
    )  # fmt: skip


def private_key(secret: bytes) -> Any:
    """Returns the X25519 key of 32 secret bytes."""
    return _modules().x25519.X25519PrivateKey.from_private_bytes(secret)


def signing_key(secret: bytes) -> Any:
    """Returns the Ed25519 key of 32 secret bytes."""
    return _modules().ed25519.Ed25519PrivateKey.from_private_bytes(secret)


def public_bytes(key: Any) -> bytes:
    """Returns the 32 bytes of a private key's public half."""
    return key.public_key().public_bytes_raw()


def agreed_key(own: Any, theirs: bytes, purpose: bytes) -> bytes:
    """Returns the 32 bytes that both owners of two X25519 keys derive for a purpose.

    Raises:
      ProtocolError: If the other public key is no good.
    """
    try:
        peer = _modules().x25519.X25519PublicKey.from_public_bytes(theirs)
        secret = own.exchange(peer)
    except ValueError as error:
        raise ProtocolError("A public key of a neighbour is not valid.") from error
    algorithm = _modules().hashes.SHA256()
    return _modules().hkdf.HKDF(algorithm, KEY_BYTES, salt=None, info=purpose).derive(secret)


def seal(key: bytes, text: bytes, context: bytes, random: Callable[[int], bytes]) -> bytes:
    """Returns nonce and ciphertext of a text that only holders of the key read, or can have made.

    Args:
      key: 32 bytes.
      text: Of any length.
      context: What the reader must expect it in: round, sender, receiver.
      random: Number of bytes -> random bytes.
    """
    nonce = random(NONCE_BYTES)
    return nonce + _modules().aead.AESGCM(key).encrypt(nonce, text, context)


def unseal(key: bytes, sealed: bytes, context: bytes) -> bytes:
    """Returns the text that was sealed.

    Raises:
      ProtocolError: If anything of it was changed, or it was sealed elsewhere.
    """
    nonce, cipher = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
    try:
        return _modules().aead.AESGCM(key).decrypt(nonce, cipher, context)
    except (_modules().exceptions.InvalidTag, ValueError) as error:
        raise ProtocolError("it was changed, or belongs to another round or pair") from error


def sign(key: Any, text: bytes) -> bytes:
    """Returns the signature of a text, 64 bytes."""
    return key.sign(text)


def is_signed(public: bytes, signature: bytes, text: bytes) -> bool:
    """Returns whether the owner of a public key signed a text."""
    try:
        _modules().ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (_modules().exceptions.InvalidSignature, ValueError):
        return False
    return True


def aes_words(key: bytes, size: int) -> np.ndarray:
    """Returns uint32[size] words of AES-256 in counter mode.

    Example:
      >>> channel.aes_words(bytes(32), 2).tolist()
      [2025887196, 2307473570]
    """
    modules = _modules().ciphers
    cipher = modules.Cipher(modules.algorithms.AES(key), modules.modes.CTR(bytes(16)))
    stream = cipher.encryptor().update(bytes(4 * size))
    return np.frombuffer(stream, "<u4")


def threefry_words(key: bytes, size: int) -> np.ndarray:
    """Returns uint32[size] words as the round program expands masks, of the key's first 8 bytes.

    They are quick on accelerators and statistically sound, but no cipher: deployments expand masks
    by `aes_words`.

    Example:
      >>> channel.threefry_words(bytes(32), 3).dtype
      dtype('uint32')
    """
    first, second = np.frombuffer(key[:8], "<u4")
    return mask_words((first, second), size)
