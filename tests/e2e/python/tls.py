"""Publishes and consumes through pika over TLS: `tls.py PORT CA VERSION [CERTIFICATE KEY]`; with a certificate it logs in by EXTERNAL."""

import hashlib
import os
import ssl
import sys

import pika


def main():
    """Sends small and large messages there and back."""
    port, authority, version = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    context = ssl.create_default_context(cafile=authority)
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    options = {}
    if len(sys.argv) > 4:
        context.load_cert_chain(sys.argv[4], sys.argv[5])
        options["credentials"] = pika.credentials.ExternalCredentials()
    parameters = pika.ConnectionParameters(
        "127.0.0.1", port, ssl_options=pika.SSLOptions(context, "localhost"), heartbeat=0, **options
    )
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    channel.confirm_delivery()
    queue = channel.queue_declare("", exclusive=True).method.queue
    bodies = [b"%d" % number for number in range(500)] + [os.urandom(5 << 20), b"", os.urandom(70_000)]
    for body in bodies:
        channel.basic_publish("", queue, body)
    for number, body in enumerate(bodies):
        _, _, got = channel.basic_get(queue, auto_ack=True)
        if hashlib.sha256(got).digest() != hashlib.sha256(body).digest():
            raise AssertionError(f"message {number} arrived changed")
    connection.close()
    print("ok")


main()
