"""The ceremony of secure aggregation on the host: its sum, its bytes, and what parties refuse."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from fljax.privacy.secagg import ceremony, channel, rehearsal, shamir
from fljax.privacy.secagg.channel import ProtocolError

N, SIZE = 12, 40
WORDS = np.random.default_rng(1).integers(0, 2**32, (N, SIZE), dtype=np.uint32)


def sum_of(clients):
    return WORDS[list(clients)].sum(0, dtype=np.uint32)


@pytest.mark.parametrize("expand", [channel.aes_words, channel.threefry_words])
@pytest.mark.parametrize("degree", [None, 8])
@pytest.mark.parametrize("trusted", [False, True])
def test_the_sum_is_exact_whoever_is_lost(expand, degree, trusted):
    """Of 8 neighbours at most 5 are lost, and 3 must answer, whatever the order of the ring."""
    lost = {"advertise": [1], "share": [9], "input": [4], "unmask": [7]}
    if not trusted:
        lost["confirm"] = [6]
    held = rehearsal.run(
        WORDS, degree=degree, threshold=0.3, lost=lost, is_server_trusted=trusted, expand=expand
    )
    assert held.survivors == tuple(n for n in range(N) if n not in (1, 9, 4))
    np.testing.assert_array_equal(held.total, sum_of(held.survivors))


@pytest.mark.parametrize(("degree", "trusted"), [(None, False), (4, True)])
def test_bytes_are_counted_as_they_are_sent_and_as_the_formula_has_them(degree, trusted):
    held = rehearsal.run(WORDS, degree=degree, is_server_trusted=trusted)
    for stage, (sent, received) in rehearsal.expected_bytes(N, SIZE, degree, trusted).items():
        assert set(held.sent[stage]) == {sent}, stage
        assert set(held.received[stage]) == {received}, stage


def test_a_threshold_of_shares_reveals_a_secret_and_fewer_say_nothing():
    secret = bytes(range(224, 256))
    shares = dict(enumerate(shamir.split(secret, 6, 3), start=1))
    for places in combinations(shares, 3):
        assert shamir.combine({place: shares[place] for place in places}) == secret
    assert shamir.combine(shares) == secret
    # with one share less every secret is as likely: some polynomial goes through it and two shares
    for other in (b"\0" * 32, b"\xff" * 32):
        points = {1: shares[1], 2: shares[2]}
        zero = int.from_bytes(other)
        third = sum(
            value * at for value, at in ((zero, 1), (-3 * points[1], 1), (3 * points[2], 1))
        )
        assert shamir.combine({**points, 3: third % shamir.PRIME}) == other
    with pytest.raises(ValueError, match="31 bytes"):
        shamir.split(b"x" * 31, 3, 2)
    with pytest.raises(ValueError, match="threshold = 4"):
        shamir.split(secret, 3, 4)


def test_masked_words_are_uniform():
    clients, mail = _dealt()
    _, text = ceremony.send(clients[0], mail[0], np.zeros(5000, np.uint32), channel.aes_words)
    counts = np.bincount(np.frombuffer(text[4:], np.uint8), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-6


def test_too_few_survivors_reveal_nothing():
    with pytest.raises(ProtocolError, match="Only 7 of the 11 neighbours .* sent their words"):
        rehearsal.run(WORDS, lost={"input": range(1, 5)})
    # the words are there, but not enough answer
    with pytest.raises(ProtocolError, match="7 shares of client 4's secret .* 8 reveal it"):
        rehearsal.run(WORDS, lost={"unmask": range(4)}, is_server_trusted=True)
    with pytest.raises(ProtocolError, match="7 clients have signed the list .* 8 must"):
        rehearsal.run(WORDS, lost={"confirm": range(5)})
    with pytest.raises(ProtocolError, match="Only 7 of the 11 neighbours .* advertised"):
        rehearsal.run(WORDS, lost={"advertise": range(4)})
    with pytest.raises(ProtocolError, match="Only 7 of the 11 neighbours .* dealt"):
        rehearsal.run(WORDS, lost={"share": range(4)})


def _dealt(trusted=False):
    """Returns (clients that have dealt, {client: messages for it})."""
    clients = rehearsal.enrol(5, None, 0.5, trusted)
    adverts = [ceremony.advertise(client) for client in clients]
    mail = {number: [] for number in range(5)}
    for number in range(5):
        clients[number], messages = ceremony.share(clients[number], adverts)
        for message in messages:
            mail[int.from_bytes(message[4:8], "little")].append(message)
    return clients, mail


def _sent(trusted=False):
    clients, mail = _dealt(trusted)
    for number in range(5):
        clients[number], _ = ceremony.send(
            clients[number], mail[number], WORDS[number], channel.aes_words
        )
    return clients


def test_a_client_never_gives_both_shares_of_another():
    """Whatever a server asks of it, with signatures or where it is trusted, it answers once."""
    client = _sent(trusted=True)[0]
    answered, text = ceremony.unmask(client, [0, 1, 2, 3])
    revealed = [text[at : at + 38] for at in range(4, len(text), 38)]
    owners = [int.from_bytes(part[1:5], "little") for part in revealed]
    assert sorted(owners) == [1, 2, 3, 4]
    for part, owner in zip(revealed, owners, strict=True):
        key, seed = client.dealt[owner]
        assert part[0] == (owner in (1, 2, 3)) and part[5:] == (seed if part[0] else key)
    for survivors in ([0, 1, 2, 3], [0, 1, 2, 4]):
        with pytest.raises(ProtocolError, match="revealed its shares already"):
            ceremony.unmask(answered, survivors)

    clients = _sent()
    signed = [ceremony.confirm(client, [0, 1, 2, 3]) for client in clients[:4]]
    signatures = [signature for _, signature in signed]
    with pytest.raises(ProtocolError, match="has signed another list"):
        ceremony.unmask(signed[0][0], [0, 1, 2, 4], signatures)
    with pytest.raises(ProtocolError, match="has signed another list"):
        ceremony.confirm(signed[0][0], [0, 1, 2, 4])
    with pytest.raises(ProtocolError, match="not among the survivors"):
        ceremony.confirm(clients[4], [0, 1, 2, 3])


def test_a_server_that_tells_clients_different_lists_is_found_out():
    clients = _sent()
    first = [ceremony.confirm(client, [0, 1, 2, 3]) for client in clients[:2]]
    second = [ceremony.confirm(client, [0, 1, 2, 3, 4]) for client in clients[2:]]
    signatures = [signature for _, signature in first + second]
    with pytest.raises(ProtocolError, match="Client 2 has not signed"):
        ceremony.unmask(first[0][0], [0, 1, 2, 3], signatures)
    with pytest.raises(ProtocolError, match="2 clients have signed .* 3 must"):
        ceremony.unmask(first[0][0], [0, 1, 2, 3], signatures[:2])
    # one signature sent often is one
    with pytest.raises(ProtocolError, match="1 clients have signed"):
        ceremony.unmask(first[0][0], [0, 1, 2, 3], signatures[:1] * 5)


def test_forged_and_changed_messages_are_refused():
    clients = rehearsal.enrol(5, None, 0.5, False)
    adverts = [ceremony.advertise(client) for client in clients]
    forged = adverts[2][:10] + bytes([adverts[2][10] ^ 1]) + adverts[2][11:]
    with pytest.raises(ProtocolError, match="keys of client 2 are not signed"):
        ceremony.share(clients[0], [adverts[1], forged])
    # signed, but in another round
    others = rehearsal.enrol(5, None, 0.5, False)
    with pytest.raises(ProtocolError, match="keys of client 1 are not signed"):
        ceremony.share(clients[0], [ceremony.advertise(others[1])])

    clients, mail = _dealt()
    changed = [*mail[0][:-1], mail[0][-1][:-1] + bytes([mail[0][-1][-1] ^ 1])]
    with pytest.raises(ProtocolError, match="client 4: it was changed"):
        ceremony.send(clients[0], changed, WORDS[0], channel.aes_words)
    with pytest.raises(ProtocolError, match="from 0 for 1"):
        ceremony.send(clients[0], mail[1], WORDS[0], channel.aes_words)
    # one pair's message under another one's header
    moved = [mail[0][1][:8] + mail[0][0][8:], *mail[0][2:]]
    with pytest.raises(ProtocolError, match="changed, or belongs to another round or pair"):
        ceremony.send(clients[0], moved, WORDS[0], channel.aes_words)


def test_settings_that_make_no_ceremony_are_refused():
    with pytest.raises(ValueError, match="degree = 3"):
        rehearsal.run(WORDS, degree=3)
    with pytest.raises(ValueError, match="degree = 12"):
        rehearsal.run(WORDS, degree=12)
    with pytest.raises(ValueError, match="2 clients hides nothing"):
        rehearsal.run(WORDS[:2])
    with pytest.raises(ValueError, match="threshold = 1.5"):
        rehearsal.run(WORDS, threshold=1.5)
