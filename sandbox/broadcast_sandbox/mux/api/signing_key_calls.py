"""The calls of signing keys: paths and codes of mux.com/api-spec.json.

Mux makes the pair, keeps the public key and shows the private key once.
"""

import base64
import time

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from broadcast_sandbox.mux.api.calls import Call, Reply, Route, data, found, page
from broadcast_sandbox.mux.model import Json, new_id
from broadcast_sandbox.mux.store import MuxStore


class SigningKeyCalls:
    def __init__(self, store: MuxStore) -> None:
        self._store = store
        self._created_at: dict[str, str] = {}

    def routes(self) -> list[Route]:
        keys, key = "/system/v1/signing-keys", "/system/v1/signing-keys/{id}"
        return [
            Route("POST", keys, "create_signing_key", self._create),
            Route("GET", keys, "list_signing_keys", self._list),
            Route("GET", key, "get_signing_key", self._get),
            Route("DELETE", key, "delete_signing_key", self._delete),
        ]

    def make(self) -> tuple[str, str]:
        """The id of a new key, which is registered, and its private key as Mux writes it: base64 of a PKCS 1 PEM."""
        pair = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = pair.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        private = pair.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
        id_ = new_id(32)
        self._store.signing_keys[id_] = public.decode()
        self._created_at[id_] = str(int(time.time()))
        return id_, base64.b64encode(private).decode()

    def _create(self, _: Call) -> Reply:
        id_, private = self.make()
        return data(self._json(id_) | {"private_key": private}, 201)

    def _list(self, call: Call) -> Reply:
        first, limit = page(call)
        return data([self._json(id_) for id_ in list(self._store.signing_keys)[first : first + limit]])

    def _get(self, call: Call) -> Reply:
        found(self._store.signing_keys.get(call.path["id"]))
        return data(self._json(call.path["id"]))

    def _delete(self, call: Call) -> Reply:
        found(self._store.signing_keys.pop(call.path["id"], None))
        return Reply(status=204)

    def _json(self, id_: str) -> Json:
        return {"id": id_, "created_at": self._created_at.get(id_, "0")}
