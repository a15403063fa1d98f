from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from FewShotSegLib.download import DownloadError
from FewShotSegLib.errors import ConfigError, SupportError
from FewShotSegLib.phantom import make_patient
from FewShotSegLib.samples import SLICER_DATA, SampleScan, SeedDrawing, find_sample, list_samples
from FewShotSegLib.volume import Geometry, Volume

SHAPE = (24, 96, 96)


class Server(http.server.ThreadingHTTPServer):
    """A web server on this machine that counts what is asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments) -> None:
                super().__init__(*arguments, directory=str(folder))

            def do_GET(self) -> None:
                asked.append(self.path)
                super().do_GET()

            def log_message(self, *arguments) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[SampleScan, Server]]:
    """A sample scan on a local server, under its digest as name, as Slicer's are."""
    folder = tmp_path / "served"
    path = make_patient(3, "CT", SHAPE).volume.write(folder / "scan.nrrd")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(folder / digest)
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/{digest}"
    yield replace(find_sample("CTLiver"), url=url, sha256=digest), server
    server.shutdown()
    server.server_close()
    thread.join()


def test_registry_names_the_digest_in_every_address():
    samples = list_samples()
    assert len({sample.name for sample in samples}) == len(samples) >= 3
    for sample in samples:
        assert sample.url == SLICER_DATA + sample.sha256
        assert len(sample.sha256) == 64 and int(sample.sha256, 16)
        assert sample.modality in ("MR", "CT")


def test_a_sample_is_found_in_any_case_and_an_unknown_one_is_refused_with_the_known_names():
    assert find_sample("mrhead").name == "MRHead"
    with pytest.raises(ConfigError, match="MRHead, CTChest"):
        find_sample("MRFoot")


def test_download_verify_read_and_cache(served, tmp_path):
    sample, server = served
    received: list[tuple[int, int | None]] = []
    volume = sample.read(cache_dir=tmp_path / "cache", progress=lambda done, total: received.append((done, total)))
    assert (volume.name, volume.modality) == ("CTLiver", "CT")
    assert np.array_equal(volume.array, make_patient(3, "CT", SHAPE).volume.array)
    assert received[-1][0] == received[-1][1]
    assert sample.fetch(cache_dir=tmp_path / "cache").name == "CTLiver.nrrd"
    assert len(server.asked) == 1


def test_a_damaged_cached_file_is_fetched_again(served, tmp_path):
    sample, server = served
    path = sample.fetch(cache_dir=tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:-100])
    assert hashlib.sha256(sample.fetch(cache_dir=tmp_path / "cache").read_bytes()).hexdigest() == sample.sha256
    assert len(server.asked) == 2


def test_a_replaced_file_is_refused_and_not_kept(served, tmp_path):
    sample, _ = served
    with pytest.raises(DownloadError, match="SHA-256"):
        replace(sample, sha256="0" * 64).fetch(cache_dir=tmp_path / "cache")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_the_liver_rule_draws_liver_on_one_slice_of_a_ct():
    phantom = make_patient(3, "CT", (36, 128, 128))
    support = find_sample("CTLiver").drawing.draw(phantom.volume)
    (k,) = np.flatnonzero(support.drawn[0])
    assert support.organs[0].name == "liver"
    drawn, truth = support.masks[0, k], phantom.labels[k] == 1
    assert 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum()) > 0.8
    assert not np.delete(support.masks[0], k, axis=0).any()


def test_the_lung_rule_stays_on_the_patients_right_in_any_orientation():
    phantom = make_patient(6, "CT", (36, 128, 128))
    mirrored = Volume(
        phantom.volume.array[:, :, ::-1],
        replace(phantom.volume.geometry, direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1), origin=(160, -160, -135)),
    )
    rule = find_sample("CTChest").drawing
    straight, flipped = rule.draw(phantom.volume), rule.draw(mirrored)
    assert np.array_equal(straight.masks, flipped.masks[..., ::-1])
    assert np.argwhere(straight.masks[0])[:, 2].mean() < 60
    assert phantom.volume.array[straight.masks[0]].mean() < -700


def test_the_head_rule_finds_what_is_bright_in_a_sagittal_scan():
    rng = np.random.default_rng(0)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (20, 64, 64)), indexing="ij")
    head = (z / 0.7) ** 2 + (y / 0.9) ** 2 + (x / 0.7) ** 2 < 1
    array = (np.where(head, 120, 4) + rng.normal(0, 3, head.shape)).astype(np.int16)
    sagittal = Geometry((64, 64, 20), (4.0, 4.0, 8.0), (0.0, 0.0, 0.0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    support = find_sample("MRHead").drawing.draw(Volume(array, sagittal))
    (k,) = np.flatnonzero(support.drawn[0])
    assert k in (9, 10)
    assert (support.masks[0, k] ^ head[k]).sum() < 0.05 * head[k].sum()


def test_a_rule_that_finds_nothing_says_so():
    phantom = make_patient(0, "CT", SHAPE)
    with pytest.raises(SupportError, match="looks like gold"):
        SeedDrawing("gold", (5000.0, 9000.0)).draw(phantom.volume)
