"""A Hub of our own for every test that wants one; none sees this machine's settings of the real one."""

import pytest
from hub_server import HubServer, Toy, forget_settings, make_toy, running_hub


@pytest.fixture
def hub(monkeypatch) -> HubServer:
    with running_hub() as server:
        forget_settings(monkeypatch)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def toy(hub, tmp_path) -> Toy:
    return make_toy(hub, tmp_path / "models")
