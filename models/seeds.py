"""Random seeds of teacher samples: the same sample of the same question in the same run always has the same one.

    request_seed("svamp-0c1d", run_seed=0, first_index=0)   # samples 0, 1, 2 ... have seeds s, s + 1, s + 2 ...
    request_seed("svamp-0c1d", run_seed=0, first_index=5)   # s + 5: asking for five more later changes nothing

Why consecutive: vLLM (looked up in 0.32.0, `vllm/v1/engine/parallel_sampling.py`, `ParentRequest`, and tried on
its server) gives sample i of a request with n > 1 the seed `seed + i`. One request with n = 10 and two with n = 5
therefore use the same ten seeds. vLLM gives samples of *different* requests with equal seeds equal random numbers,
so one seed for every request would couple all questions; a hash of the example id avoids that.

Why up to 2**53: seeds travel as JSON numbers and are stored in tables, and both must hold them exactly. On a CPU
torch's generator reads only a seed's low 32 bits (7 and 7 + 2**32 give the same text), so two *questions* may share
random numbers by chance; within one question consecutive seeds never do.
"""

import hashlib

MAX_SEED = 2**53 - 1  # the largest integer that every JSON reader keeps exact
MAX_SAMPLES = 2**20  # per question and run: room above every base seed


def request_seed(example_id: str, run_seed: int, first_index: int) -> int:
    """The seed of one request, which is the seed of its first sample.

    Args:
        example_id: content id of the question.
        run_seed: the run's own seed, any integer; another one gives other samples of the same questions.
        first_index: index of the request's first sample among the question's samples, from 0.

    Returns:
        An integer from 0 to 2**53 - 1; sample `first_index + i` has this plus i.

    Raises:
        ValueError: `first_index` is negative or not below 2**20.
    """
    if not 0 <= first_index < MAX_SAMPLES:
        raise ValueError(f"first_index must be from 0 to {MAX_SAMPLES - 1}, not {first_index}")
    # The separator cannot occur in str(int), so no two (run_seed, example_id) pairs share a hashed text.
    digest = hashlib.blake2b(f"{run_seed}:{example_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    base = int.from_bytes(digest, "big") % (MAX_SEED + 1 - MAX_SAMPLES)
    return base + first_index


def derived_seed(*parts: str | int) -> int:
    """A seed from 0 to 2**53 - 1 for whatever the parts name: ("step", run seed, step, process) ..."""
    text = ":".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % (MAX_SEED + 1)
