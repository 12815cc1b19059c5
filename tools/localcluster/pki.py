"""Creates the cluster's certificates: one certificate authority and the certificates that it signs.

The standard library cannot create certificates, so `openssl` does. Elliptic-curve keys are used, because they take only
milliseconds. The key that signs the tokens of service accounts is an RSA key, as on nearly every cluster.
"""

from __future__ import annotations

from pathlib import Path

from localcluster.commands import run
from localcluster.machine import program

_DAYS = "365"


class Pki:
    """The files with the keys and certificates of one plane."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = folder / "ca.crt"
        self.server = folder / "apiserver.crt"
        self.kubelet_client = folder / "kubelet-client.crt"
        self.proxy_client = folder / "front-proxy.crt"
        self.service_accounts = folder / "service-accounts.pub"

    def create(self, addresses: list[str], service_address: str) -> None:
        """Creates all keys and certificates. `addresses` are the addresses of the API server."""
        self._openssl(
            "req", "-x509", *_NEW_KEY, "-keyout", self._key(self.ca), "-out", str(self.ca),
            "-days", _DAYS, "-subj", "/CN=finetune-localcluster",
        )  # fmt: skip
        service = "kubernetes.default.svc"
        names = [f"IP:{address}" for address in [*addresses, service_address]]
        names += [f"DNS:{service}", f"DNS:{service}.cluster.local", "DNS:localhost"]
        self._sign(self.server, "/CN=kube-apiserver", f"subjectAltName={','.join(names)}")
        self._sign(self.kubelet_client, "/O=system:masters/CN=kube-apiserver-kubelet-client")
        self._sign(self.proxy_client, "/CN=front-proxy-client")
        private = self._key(self.service_accounts)
        self._openssl("genrsa", "-out", private, "2048")
        self._openssl("rsa", "-in", private, "-pubout", "-out", str(self.service_accounts))

    def key(self, certificate: Path) -> Path:
        """Returns the private key of a certificate."""
        return certificate.with_suffix(".key")

    def _key(self, certificate: Path) -> str:
        return str(self.key(certificate))

    def _sign(self, certificate: Path, subject: str, extension: str = "") -> None:
        extensions = certificate.with_suffix(".ext")
        extensions.write_text(f"extendedKeyUsage=serverAuth,clientAuth\n{extension}\n")
        request = str(certificate.with_suffix(".csr"))
        self._openssl(
            "req", "-new", *_NEW_KEY, "-keyout", self._key(certificate),
            "-subj", subject, "-out", request,
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", request, "-CA", str(self.ca), "-CAkey", self._key(self.ca),
            "-CAcreateserial", "-days", _DAYS, "-extfile", str(extensions), "-out", str(certificate),
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        run([program("openssl"), *arguments])


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
