"""ESPnet's separation classes on our bundles."""

import numpy as np
import pytest
from espnet2.bin import enh_tse_inference
from espnet2.main_funcs.pack_funcs import unpack
from standin import noise
from untrained import bundle_of

from espnet2_ext.errors import BundleError
from espnet2_ext.infer.espnet import QuerySeparateSpeech, WeakSeparateSpeech
from espnet2_ext.infer.query_separator import Separator
from espnet2_ext.tasks.qsep import QSepTask
from espnet2_ext.util.config import read_config
from espnet2_ext.util.names import shipped

FS = 32000


@pytest.fixture(scope="module", params=["care_sep", "query_unet"])
def bundle(request, tmp_path_factory):
    """Of a network that embeds queries itself, or with one beside it; untrained."""
    top = tmp_path_factory.mktemp(request.param)
    config = QSepTask.get_default_config() | read_config(shipped("conf") / f"debug/train_qsep_{request.param}.yaml")
    return bundle_of(config, "qsep", top / "model.zip")


def test_from_pretrained(bundle):
    """A folder, no unpacking, no registering; two queries at once, as our own class answers them."""
    speech = QuerySeparateSpeech.from_pretrained(bundle.parent)
    mix, *queries = (noise(0.5, FS, seed=n).T for n in range(3))  # [1, T]
    found = speech(mix, enroll_ref1=queries[0], enroll_ref2=queries[1])
    separator = Separator.from_pretrained(bundle, "cpu")
    vectors = np.concatenate([separator.embed_batch(q)[0] for q in queries])
    assert [x.shape for x in found] == [mix.shape, mix.shape]
    want = separator.separate_batch(np.concatenate([mix, mix]), vectors)
    np.testing.assert_allclose(np.concatenate(found), want, atol=1e-5)
    with pytest.raises(BundleError, match="its model answers queries"):
        WeakSeparateSpeech.from_pretrained(bundle)


def test_segments_in_seconds_of_the_model(bundle):
    speech = QuerySeparateSpeech.from_pretrained(bundle, segment_size=0.4, hop_size=0.2)
    mix, query = (noise(1.0, FS, seed=n).T for n in range(2))
    lengths = []
    encoder = speech.enh_model.encoder.register_forward_hook(lambda m, given, out: lengths.append(given[0].shape[1]))
    (found,) = speech(mix, enroll_ref1=query)
    encoder.remove()
    assert found.shape == mix.shape and lengths.count(12800) == 4


def test_espnets_own_class_builds_it(bundle, tmp_path, request):
    """Of a network that embeds queries itself: what ESPnet's `from_pretrained` does with an archive."""
    if "query_unet" in request.node.name:
        pytest.skip("ESPnet's model has no query network")
    stock = enh_tse_inference.SeparateSpeech(**unpack(bundle, tmp_path))
    mix, query = (noise(0.5, FS, seed=n).T for n in range(2))
    (found,) = stock(mix, FS, enroll_ref1=query)
    (want,) = QuerySeparateSpeech.from_pretrained(bundle)(mix, enroll_ref1=query)
    np.testing.assert_allclose(found, want, atol=1e-6)
