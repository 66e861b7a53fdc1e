"""Stands in for the module with which aio-pika's suite starts its broker in Docker: the broker is there already."""
from dataclasses import dataclass


class DockerNotAvailableError(Exception):
    """Never raised."""


@dataclass
class DockerHostInfo:
    container_host: str = "127.0.0.1"


@dataclass
class ContainerInfo:
    id: str
    ports: dict
    host: str


def check_docker_available():
    return DockerHostInfo()


class DockerClient:
    def __init__(self, docker_host_info=None):
        pass

    def run(self, image, ports, environment=None):
        return ContainerInfo(id="broker", ports={port: int(port.split("/")[0]) for port in ports}, host="127.0.0.1")

    def kill(self, container_id):
        pass

    def remove(self, container_id):
        pass
