"""`manyfill push`. As in cli.py, nothing heavy is imported before the command runs."""


def push(model: str, repo: str, /, *, licence: str | None = None, private: bool = False) -> None:
    """Upload MODEL with its card to the Hugging Face Hub as REPO, which every --model then takes.

    Log in first with `hf auth login`, or set HF_TOKEN.

    Parameters
    ----------
    model
        A model directory, such as RUN/model.
    repo
        Its name there, owner/name; made if it is not there yet.
    licence
        The Hub's name for the licence of the weights, such as apache-2.0 or cc-by-nc-4.0.
    private
        Show it to nobody else, if it is made now.
    """
    from manyfill.checkpoint import load_model
    from manyfill.hub import push as upload

    print(upload(load_model(model), repo, licence, private))
