"""The whole ceremony of secure aggregation among strangers, message by message, on the host.

Five stages (Bonawitz et al. 2017, CCS, 2017/281; on a regular graph Bell et al. 2020, CCS,
2020/704), in each of which clients may be lost:

  advertise  each client sends two public keys, signed;
  share      it deals shares of its key for pairwise masks and of the seed of its own mask, each
             sealed for one neighbour;
  input      it sends its words, behind its own mask and one for each neighbour that dealt;
  confirm    it signs the list of those whose words arrived, and checks what others have signed,
             so that a server which lies to some of them is found out;
  unmask     it sends, of each neighbour whose words arrived, the share of the seed, and of each
             that was lost, the share of the key; never both.

The functions of a client take its state and bytes, and return its new state and bytes; `reveal` is
the server's. `fljax.privacy.secagg.rehearsal` plays all of them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fljax.privacy.secagg import channel, shamir
from fljax.privacy.secagg.channel import Expand, ProtocolError

STAGES = ("advertise", "share", "input", "confirm", "unmask")
_NUMBER = struct.Struct("<I")
ADVERT = _NUMBER.size + 2 * channel.KEY_BYTES + channel.SIGNATURE_BYTES
DEAL = 2 * _NUMBER.size + 2 * shamir.SHARE_BYTES
SEALED = 2 * _NUMBER.size + channel.NONCE_BYTES + DEAL + channel.TAG_BYTES
SIGNED = _NUMBER.size + channel.SIGNATURE_BYTES
REVEALED = 1 + _NUMBER.size + shamir.SHARE_BYTES


class Client(NamedTuple):
    """A client's knowledge in a ceremony.

    Attributes:
      number: Its number.
      round: 32 bytes that no other ceremony has.
      neighbours: Numbers of the clients it shares masks with, in order.
      needed: How many of them must be there in each stage.
      quorum: How many clients must have signed the same list of those whose words arrived; 0 trusts
        the server to tell all the same.
      identities: {client: public key} by which the signatures of clients are known.
      signing: Its Ed25519 key.
      sealing: Its X25519 key for sealed messages.
      masking: Its X25519 key for pairwise masks.
      secrets: The 32 bytes of `masking`, and the seed of its own mask.
      adverts: {neighbour: (sealing key, masking key)}, of those that advertised.
      dealt: {neighbour: (share of its key, share of its seed)}, of those that dealt.
      survivors: Whose words arrived, once it has signed their list.
      is_done: Whether it has revealed its shares, which it does once.
    """

    number: int
    round: bytes
    neighbours: tuple[int, ...]
    needed: int
    quorum: int
    identities: Mapping[int, bytes]
    signing: Any
    sealing: Any
    masking: Any
    secrets: tuple[bytes, bytes]
    adverts: Mapping[int, tuple[bytes, bytes]] = {}
    dealt: Mapping[int, tuple[bytes, bytes]] = {}
    survivors: tuple[int, ...] | None = None
    is_done: bool = False


def advertise(client: Client) -> bytes:
    """Returns a client's number and public keys, signed."""
    keys = channel.public_bytes(client.sealing) + channel.public_bytes(client.masking)
    text = _NUMBER.pack(client.number) + keys
    return text + channel.sign(client.signing, client.round + text)


def share(
    client: Client, adverts: Sequence[bytes], random: Callable[[int], bytes] = os.urandom
) -> tuple[Client, list[bytes]]:
    """Returns (client', a sealed message for each neighbour that advertised).

    Raises:
      ProtocolError: If an advert is forged, or too few neighbours have advertised.
    """
    found = {}
    for advert in adverts:
        (number,) = _NUMBER.unpack_from(advert)
        text, signature = advert[: -channel.SIGNATURE_BYTES], advert[-channel.SIGNATURE_BYTES :]
        known = client.identities.get(number, b"")
        if not channel.is_signed(known, signature, client.round + text):
            raise ProtocolError(f"The keys of client {number} are not signed by it.")
        keys = text[_NUMBER.size :]
        found[number] = keys[: channel.KEY_BYTES], keys[channel.KEY_BYTES :]
    found = {number: found[number] for number in client.neighbours if number in found}
    _check_enough(client, len(found), "advertised their keys")
    places = len(client.neighbours)
    columns = [shamir.split(secret, places, client.needed, random) for secret in client.secrets]
    messages = []
    for place, neighbour in enumerate(client.neighbours):
        if neighbour in found:
            text = _header(client.number, neighbour)
            text += b"".join(column[place].to_bytes(shamir.SHARE_BYTES) for column in columns)
            key = channel.agreed_key(client.sealing, found[neighbour][0], b"share")
            context = client.round + _header(client.number, neighbour)
            sealed = channel.seal(key, text, context, random)
            messages.append(_header(client.number, neighbour) + sealed)
    return client._replace(adverts=found), messages


def send(
    client: Client, dealt: Sequence[bytes], words: np.ndarray, expand: Expand
) -> tuple[Client, bytes]:
    """Returns (client', the client's words behind its masks).

    Args:
      client: The client.
      dealt: Sealed messages of its neighbours.
      words: uint32[d], added modulo 2^32.
      expand: Makes the words of a mask from 32 bytes.

    Raises:
      ProtocolError: If a message was changed, or too few neighbours have dealt.
    """
    held = {}
    for message in dealt:
        sender, receiver = struct.unpack_from("<II", message)
        if receiver != client.number or sender not in client.adverts:
            raise ProtocolError(
                f"Client {client.number} got a sealed message from {sender} for {receiver}."
            )
        key = channel.agreed_key(client.sealing, client.adverts[sender][0], b"share")
        try:
            text = channel.unseal(key, message[8:], client.round + _header(sender, receiver))
        except ProtocolError as error:
            raise ProtocolError(f"The sealed message of client {sender}: {error}.") from error
        shares = text[2 * _NUMBER.size :]
        held[sender] = shares[: shamir.SHARE_BYTES], shares[shamir.SHARE_BYTES :]
    _check_enough(client, len(held), "dealt shares")
    total = words.astype(np.uint32) + expand(client.secrets[1], words.size)
    for neighbour in held:
        key = channel.agreed_key(client.masking, client.adverts[neighbour][1], b"mask")
        total += _signed(expand(key, words.size), client.number, neighbour)
    text = _NUMBER.pack(client.number) + total.astype("<u4").tobytes()
    return client._replace(dealt=held), text


def confirm(client: Client, survivors: Sequence[int]) -> tuple[Client, bytes]:
    """Returns (client', its signature of the list of those whose words arrived).

    Raises:
      ProtocolError: If it has signed another list, its own words are not in it, or too few
        neighbours are.
    """
    survivors = tuple(sorted(survivors))
    if client.survivors is not None and client.survivors != survivors:
        raise ProtocolError(f"Client {client.number} has signed another list of survivors.")
    if client.number not in survivors:
        raise ProtocolError(f"Client {client.number} is not among the survivors it should sign.")
    _check_enough(client, len(set(client.dealt) & set(survivors)), "sent their words")
    signature = channel.sign(client.signing, _list_text(client, survivors))
    return client._replace(survivors=survivors), _NUMBER.pack(client.number) + signature


def unmask(
    client: Client,
    survivors: Sequence[int],
    signatures: Sequence[bytes] = (),
) -> tuple[Client, bytes]:
    """Returns (client', the shares that take the masks of its neighbours away).

    Args:
      client: The client.
      survivors: The list it has signed, or where `quorum` is 0 the first one it sees.
      signatures: Of other clients, of that list.

    Raises:
      ProtocolError: If it has revealed its shares already, the list is another one, too few
        neighbours survive, or too few clients have signed it.
    """
    survivors = tuple(sorted(survivors))
    if client.is_done:
        raise ProtocolError(
            f"Client {client.number} has revealed its shares already. Both shares of one client "
            "would give its words away."
        )
    if client.quorum and client.survivors != survivors:
        raise ProtocolError(f"Client {client.number} has signed another list of survivors.")
    here = set(survivors)
    _check_enough(client, len(set(client.dealt) & here), "sent their words")
    text, signed = _list_text(client, survivors), set()
    for message in signatures:
        (number,) = _NUMBER.unpack_from(message)
        known = client.identities.get(number, b"")
        if not channel.is_signed(known, message[_NUMBER.size :], text):
            raise ProtocolError(f"Client {number} has not signed the list of survivors.")
        signed.add(number)
    if len(signed) < client.quorum:
        raise ProtocolError(
            f"{len(signed)} clients have signed the list of survivors; {client.quorum} must."
        )
    parts = [
        bytes([neighbour in here]) + _NUMBER.pack(neighbour) + (seed if neighbour in here else key)
        for neighbour, (key, seed) in client.dealt.items()
    ]
    return client._replace(is_done=True), _NUMBER.pack(client.number) + b"".join(parts)


def reveal(
    arrived: Mapping[int, np.ndarray],
    revealed: Mapping[int, bytes],
    adverts: Mapping[int, bytes],
    needed: int,
    neighbours: Mapping[int, tuple[int, ...]],
    expand: Expand,
) -> np.ndarray:
    """Returns the sum of the words that arrived, as the server takes the masks away.

    Args:
      arrived: {client: uint32[d] masked words}.
      revealed: {client: what it sent in stage "unmask"}.
      adverts: {client: what it sent in stage "advertise"}.
      needed: Shares that reveal a secret.
      neighbours: {client: its neighbours in order}.
      expand: As for `run`.

    Raises:
      ProtocolError: If there are too few shares of some secret.
    """
    shares: dict[int, dict[int, int]] = {}
    for sender, text in revealed.items():
        for at in range(_NUMBER.size, len(text), REVEALED):
            _, owner = struct.unpack_from("<?I", text, at)
            place = share_place(neighbours[owner], sender)
            value = int.from_bytes(text[at + 1 + _NUMBER.size : at + REVEALED])
            shares.setdefault(owner, {})[place] = value
    if not arrived:
        raise ProtocolError("No client's words have arrived; there is nothing to reveal.")
    size = len(next(iter(arrived.values())))
    total = sum(arrived.values(), np.zeros(size, np.uint32))
    for owner in sorted({*arrived, *shares}):
        found = dict(sorted(shares.get(owner, {}).items())[:needed])
        if len(found) < needed:
            raise ProtocolError(
                f"{len(found)} shares of client {owner}'s secret have arrived; {needed} reveal it. "
                "Too many of its neighbours are lost, so the sum of this round stays hidden."
            )
        secret = shamir.combine(found)
        if owner in arrived:
            total = total - expand(secret, size)
            continue
        lost_key = channel.private_key(secret)
        for neighbour in neighbours[owner]:
            if neighbour in arrived:
                public = adverts[neighbour][_NUMBER.size + channel.KEY_BYTES :][: channel.KEY_BYTES]
                key = channel.agreed_key(lost_key, public, b"mask")
                total = total - _signed(expand(key, size), neighbour, owner)
    return total


def share_place(neighbours: Sequence[int], holder: int) -> int:
    """Returns where the polynomials of a client are evaluated for one of its neighbours."""
    return neighbours.index(holder) + 1


def _header(sender: int, receiver: int) -> bytes:
    return _NUMBER.pack(sender) + _NUMBER.pack(receiver)


def _list_text(client: Client, survivors: Sequence[int]) -> bytes:
    return client.round + b"survivors" + b"".join(map(_NUMBER.pack, survivors))


def _signed(mask: np.ndarray, own: int, other: int) -> np.ndarray:
    """Returns what a client adds of a mask it shares: of two, the smaller number adds it."""
    return mask if own < other else np.uint32(0) - mask


def _check_enough(client: Client, count: int, what: str) -> None:
    if count < client.needed:
        raise ProtocolError(
            f"Only {count} of the {len(client.neighbours)} neighbours of client {client.number} "
            f"have {what}, and {client.needed} must. It sends nothing more in this round."
        )
