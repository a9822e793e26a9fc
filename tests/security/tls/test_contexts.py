"""Contexts of servers and clients, over real sockets: who is accepted, and files that change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time

import pytest
from tests.support.certificates import TRUST_DOMAIN, Authority, spiffe_worker

from fingerpost.errors import ConfigurationError, TlsFailed
from fingerpost.security.tls import ClientTls, ServerTls, TlsConfig, peer_certificate

pytestmark = pytest.mark.shell


@pytest.fixture
def ca(tmp_path):
    return Authority(tmp_path)


def _server(pair, **more):
    return TlsConfig(cert=str(pair.cert), key=str(pair.key), **more)


@contextlib.asynccontextmanager
async def _serving(context):
    """Answers each connection with what it knows of the client; yields the port."""
    shown = []

    async def answer(reader, writer):
        shown.append(peer_certificate(writer.transport))
        with contextlib.suppress(OSError):
            writer.write(b"hello")
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], shown
    finally:
        server.close()


async def _ask(port, context, host="127.0.0.1"):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=host
    )
    try:
        assert await reader.readexactly(5) == b"hello"
        return writer.get_extra_info("ssl_object")
    finally:
        writer.close()


def _worker(tls, service="flowers"):
    return tls.for_worker(service, speaks_tls=True, peer="w")


async def test_mutual_tls_names_the_client(ca):
    worker = ca.worker("flowers")
    pair = ca.issue("client", uris=["spiffe://example.org/app"], hosts=["app.example.org"])
    server = ServerTls(_server(worker, client_ca=str(ca.file)))
    client = ClientTls(TlsConfig(ca=str(ca.file), cert=str(pair.cert), key=str(pair.key)))
    async with _serving(server.current()) as (port, shown):
        tls = await _ask(port, client.for_host())
        assert tls.version() == "TLSv1.3"
        assert tls.selected_alpn_protocol() == "http/1.1"
    (peer,) = shown
    assert peer.spiffe_ids == ("spiffe://example.org/app",)
    assert peer.dns_names == ("app.example.org",)
    assert peer.subject == "CN=client"
    assert len(peer.thumbprint) == 43
    assert server.mutual


async def test_a_client_without_a_certificate_is_refused(ca):
    server = ServerTls(_server(ca.worker("flowers"), client_ca=str(ca.file)))
    async with _serving(server.current()) as (port, _):
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await _ask(port, ClientTls(TlsConfig(ca=str(ca.file))).for_host())


async def test_without_mutual_tls_nobody_is_named(ca):
    server = ServerTls(_server(ca.worker("flowers")))
    async with _serving(server.current()) as (port, shown):
        await _ask(port, ClientTls(TlsConfig(ca=str(ca.file))).for_host())
    assert shown == [None]


async def test_a_spiffe_id_is_checked_instead_of_the_host_name(ca):
    pair = ca.issue("w", uris=[spiffe_worker("flowers")], hosts=())
    client = ClientTls(TlsConfig(ca=str(ca.file), trust_domain=TRUST_DOMAIN))
    by_name = ClientTls(TlsConfig(ca=str(ca.file)))
    async with _serving(ServerTls(_server(pair)).current()) as (port, _):
        await _ask(port, _worker(client))
        with pytest.raises(ssl.SSLCertVerificationError, match="'digits'"):
            await _ask(port, _worker(client, "digits"))
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(port, _worker(by_name))


async def test_another_authority_is_not_trusted(ca, tmp_path):
    impostor = Authority(tmp_path, "impostor").worker("flowers", "fake")
    client = ClientTls(TlsConfig(ca=str(ca.file), trust_domain=TRUST_DOMAIN))
    async with _serving(ServerTls(_server(impostor)).current()) as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(port, _worker(client))


async def test_tls_1_1_is_refused(ca):
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    async with _serving(ServerTls(_server(ca.worker("flowers"))).current()) as (port, _):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await _ask(port, old)


def test_a_worker_without_tls_is_refused_by_who_has_a_ca(ca):
    client = ClientTls(TlsConfig(ca=str(ca.file)))
    with pytest.raises(TlsFailed, match=r"10\.0\.0\.7:80: .*--tls-cert"):
        client.for_worker("flowers", speaks_tls=False, peer="10.0.0.7:80")
    lenient = ClientTls(TlsConfig(ca=str(ca.file), allow_plain=True))
    assert lenient.for_worker("flowers", speaks_tls=False, peer="") is None
    assert ClientTls().for_worker("flowers", speaks_tls=False, peer="") is None


def test_what_a_server_refuses_to_start_with(ca, tmp_path):
    one, two = ca.worker("flowers"), ca.worker("digits")
    expired = ca.issue("expired", valid_from_s=-100, valid_to_s=-10)
    mixed = TlsConfig(cert=str(one.cert), key=str(two.key))
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("not PEM")
    for config, says in [
        (mixed, "is not that of the certificate"),
        (_server(expired), "has expired"),
        (TlsConfig(cert=str(tmp_path / "none"), key=str(one.key)), "cannot be read: No such file"),
        (TlsConfig(cert=str(tmp_path), key=str(one.key)), "is not a file"),
        (TlsConfig(cert=str(nonsense), key=str(nonsense)), "not a PEM certificate"),
        (_server(one, client_ca=str(nonsense)), "does not hold PEM certificates"),
    ]:
        with pytest.raises(ConfigurationError, match=says):
            ServerTls(config)
    with pytest.raises(ConfigurationError, match="does not hold PEM"):
        ClientTls(TlsConfig(ca=str(nonsense)))


async def test_new_files_are_used_and_broken_ones_told_once(ca, caplog, monkeypatch):
    monkeypatch.setattr("fingerpost.security.tls.files._LOOK_EVERY_S", 0.0)
    caplog.set_level(logging.INFO)
    pair = ca.worker("flowers")
    server = ServerTls(_server(pair))
    before, old_cert = server.current(), pair.cert.read_bytes()
    pair.cert.write_bytes(old_cert[:100])
    assert server.current() is before
    assert server.current() is before
    assert caplog.text.count("the last good certificate stays in use") == 1
    ca.worker("flowers")  # a new pair at the same place
    after = server.current()
    assert after is not before
    async with _serving(after) as (port, _):
        tls = await _ask(port, ClientTls(TlsConfig(ca=str(ca.file))).for_host())
        assert ssl.DER_cert_to_PEM_cert(tls.getpeercert(binary_form=True)).encode() != old_cert


async def test_a_client_reads_its_authorities_again(ca, tmp_path, monkeypatch):
    monkeypatch.setattr("fingerpost.security.tls.files._LOOK_EVERY_S", 0.0)
    second = Authority(tmp_path, "second")
    client = ClientTls(TlsConfig(ca=str(ca.file)))
    async with _serving(ServerTls(_server(second.worker("flowers"))).current()) as (port, _):
        with pytest.raises(ssl.SSLCertVerificationError):
            await _ask(port, client.for_host())
        ca.file.write_bytes(ca.pem + second.pem)
        await _ask(port, client.for_host())


def test_a_key_that_everybody_can_read_is_told(ca, caplog):
    pair = ca.issue("server")
    ServerTls(_server(pair))
    assert not caplog.records
    pair.key.chmod(0o644)
    ServerTls(_server(pair))
    (record,) = caplog.records
    assert "everybody on this machine can read the TLS key" in record.getMessage()
    assert f"(mode 0644): run `chmod o-r {pair.key}`" in record.getMessage()


def test_expiry_while_serving_is_told_once(ca, caplog):
    pair = ca.issue("short", valid_to_s=100)
    now = time.time()
    at = now
    server = ServerTls(_server(pair), clock=lambda: at)
    server.current()
    assert "expired" not in caplog.text
    at = now + 200
    server.current()
    server.current()
    assert caplog.text.count("has expired") == 1
    assert "renew it" in caplog.text


def test_what_its_own_certificate_says(ca):
    own = ServerTls(_server(ca.worker("flowers"))).certificate
    assert own.spiffe_ids == (spiffe_worker("flowers"),)
    assert own.addresses == ("127.0.0.1",)
    assert own.dns_names == ("localhost",)
    assert own.not_after > time.time()
