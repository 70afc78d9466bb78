"""A policy is tested through its load: what it comes to, or what is told of it."""

import pytest

from sidecar.config.compile import load as load_documents
from sidecar.core.errors import PolicyError


@pytest.fixture
def load(tmp_path):
    def load(*texts, upstreams=("default", "llm"), region="eu"):
        for index, text in enumerate(texts):
            (tmp_path / f"{index}.yaml").write_text(text)
        return load_documents(tmp_path, set(upstreams), region=region).policy

    return load


@pytest.fixture
def faults(tmp_path):
    def faults(text, upstreams=("default",), region="local"):
        path = tmp_path / "p.yaml"
        path.write_text(text)
        with pytest.raises(PolicyError) as caught:
            load_documents(path, set(upstreams), region=region)
        return [str(fault).replace(str(tmp_path) + "/", "") for fault in caught.value.faults]

    return faults
