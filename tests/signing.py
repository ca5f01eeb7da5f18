"""RSA keys for tests. A key takes a tenth of a second to make, so each is made once."""

from functools import cache

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@cache
def signing_key(number: int = 0) -> rsa.RSAPrivateKey:
    """*number*: another number is another key."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def signing_key_pem(number: int = 0) -> str:
    """The private key, in the form in which Mux hands it out, but for the base64 around it."""
    key = signing_key(number)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


def public_pem(number: int = 0) -> str:
    public = signing_key(number).public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
