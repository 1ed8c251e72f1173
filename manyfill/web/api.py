"""The HTTP API: pictures in as parts of a form, fills out as a zip file or as a stream of events."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Header, Path, Request, UploadFile
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel, WithJsonSchema
from starlette.exceptions import HTTPException
from starlette.responses import Response

from manyfill import __version__
from manyfill.encode import CHOICES, Encoding
from manyfill.inputs import Sampling, parse_temperature
from manyfill.web import examples
from manyfill.web.events import fill_events
from manyfill.web.result import ARCHIVE, SHEET, TYPES, Result, View, archive, public_name
from manyfill.web.service import Service, while_present
from manyfill.web.slot import Turn
from manyfill.web.work import Drawing, Gone, asked, captioned

SEEDS = 2**53  # beyond, JavaScript's numbers are not whole
EVENTS, ZIP, PNG = "text/event-stream", "application/zip", "image/png"
GONE = 499  # a client that went away: nobody is left to read it


class Refusal(BaseModel):
    """Why a request was refused: what was wrong, and what is accepted."""

    detail: str


def service_of(request: Request) -> Service:
    return request.app.state.service


Served = Annotated[Service, Depends(service_of)]


class Queued(APIRoute):
    """What takes a turn: where no place is free it is refused before its body is read and taken apart.

    A place is taken only after that, or who sends slowly would hold one.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            service_of(request).slot.check()
            return await handle(request)

        return checked


async def admitted(service: Served) -> AsyncIterator[Turn]:
    """A place in the queue until the answer is sent."""
    turn = service.slot.admit()
    try:
        yield turn
    finally:
        turn.end()


def sampling(
    n: Annotated[int, Form(ge=1, le=64, description="How many fills.")] = 8,
    seed: Annotated[int, Form(ge=-SEEDS, le=SEEDS, description="The same seed draws the same fills.")] = 0,
    temperature: Annotated[
        str,
        Form(
            max_length=200,
            description="Spread of the latents: 1 draws from the model as it is, 0 takes their means; one for all "
            "levels, or one for each, coarsest first, of which the last also stands for all finer ones.",
        ),
    ] = "1",
) -> Sampling:
    return Sampling(n, seed, parse_temperature(temperature))


def encoding(
    format: Annotated[
        Annotated[str, WithJsonSchema({"type": "string", "enum": list(CHOICES)})] | None,
        Form(max_length=20, description="Of the files, instead of the picture's own. Pictures in events are PNG."),
    ] = None,
    quality: Annotated[
        Annotated[int, WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100})] | None,
        Form(description="Of JPEG and WebP; if left out, the picture's own, else 95 and WebP without loss."),
    ] = None,
) -> Encoding:
    return Encoding(format, quality)


def only_fields(*names: str) -> Any:
    """Refuses a form with any other field, with one twice, or with an empty one, which would count as left out."""

    async def check(request: Request) -> None:
        form = (await request.form()).multi_items()
        sent = [name for name, _ in form]
        for name, value in form:
            if name not in names:
                raise HTTPException(422, f"{name[:50]!r}: there is no such field; there are {', '.join(names)}")
            if sent.count(name) > 1:
                raise HTTPException(422, f"{name}: was sent {sent.count(name)} times; send it once")
            if value == "":
                raise HTTPException(422, f"{name}: is empty; give a value, or leave the field out")

    return Depends(check)


Turned = Annotated[Turn, Depends(admitted)]
Sampled = Annotated[Sampling, Depends(sampling)]
Encoded = Annotated[Encoding, Depends(encoding)]
Viewed = Annotated[
    View,
    Form(
        description="What an event shows: the whole picture, as in the zip file, or only the rectangle around the "
        "hole, transparent where the picture is known."
    ),
]
Accept = Annotated[str, Header(description=f"{EVENTS} for events, anything else for a zip file.")]
ResultId = Annotated[
    str, Path(pattern=r"^[\w-]{22}$", description="From the event `done`, or the header Manyfill-Result.")
]
REFUSALS: dict[int | str, dict[str, Any]] = {code: {"model": Refusal} for code in (400, 401, 403, 408, 413, 422, 429)}
FILLS: dict[int | str, dict[str, Any]] = REFUSALS | {
    200: {
        "description": "A zip file with the names of the command line: fill-00.png, fill-01.png, ..., mean.png, "
        "q05.png, q50.png, q95.png (or .jpg, ...), std.png, sheet.png, and the record fill.json; or events: waiting, "
        "start, fill, ..., mean, uncertainty, done.",
        "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}, EVENTS: {"schema": {"type": "string"}}},
    }
}
OPTIONS = ("n", "seed", "temperature", "format", "quality", "view")
router = APIRouter(prefix="/api/v1")
queued = APIRouter(prefix="/api/v1", route_class=Queued)


@queued.post(
    "/fill",
    responses=FILLS,
    response_class=Response,
    dependencies=[only_fields("image", "mask", *OPTIONS, "caption", "guidance")],
)
async def fill(
    request: Request,
    service: Served,
    turn: Turned,
    options: Sampled,
    encoding: Encoded,
    image: Annotated[UploadFile, File(description="The picture: PNG, JPEG, WebP, TIFF, BMP, GIF, PPM or NPY.")],
    mask: Annotated[
        UploadFile | None,
        File(
            description="As large as the image, white where it is missing; left out, its transparent pixels are, "
            "or those that are not a number."
        ),
    ] = None,
    caption: Annotated[
        str | None, Form(max_length=2000, description="What the whole picture shows, for a model that reads captions.")
    ] = None,
    guidance: Annotated[
        float,
        Form(
            description="How closely fills follow the caption: 1 as the model does, more to exaggerate, 0 hardly.",
            json_schema_extra={"minimum": 0},
        ),
    ] = 1.0,
    view: Viewed = "picture",
    accept: Accept = ZIP,
) -> Response:
    """Draw fills of the hole; fill i is a function of (image, mask, seed, i)."""
    seen = view if EVENTS in accept else None
    sent = await image.read(), await mask.read() if mask else None
    subject = await service.open(request, *sent, options.n, seen or "picture")
    subject = captioned(service.filler, subject, caption, guidance)
    said = subject.caption.record() if subject.caption else {}
    step = {"command": "fill", **asked(options, encoding), **said}
    drawing = Drawing(service.filler, subject, options, encoding, step)
    return await _answer(request, turn, drawing, seen)


@queued.post(
    "/reroll",
    responses=FILLS | {404: {"model": Refusal}},
    response_class=Response,
    dependencies=[only_fields("result", "fill", "keep_levels", *OPTIONS)],
)
async def reroll(
    request: Request,
    service: Served,
    turn: Turned,
    options: Sampled,
    encoding: Encoded,
    result: Annotated[str, Form(max_length=64, description="From the event `done`, or the header Manyfill-Result.")],
    fill: Annotated[int, Form(ge=0, description="Which of its fills, counted from 0.")],
    keep_levels: Annotated[
        str, Form(max_length=200, description="Levels to keep, 1 the coarsest: 1-4, or 1,3,7-, or all or none.")
    ],
    view: Viewed = "picture",
    accept: Accept = ZIP,
) -> Response:
    """Draw some levels of a fill anew and keep the others, under its own caption and guidance."""
    seen = view if EVENTS in accept else None
    kept = service.results.get(result)
    service.check_volume(kept.subject, options.n, seen or "picture")
    drawing = Drawing.rerolling(service.filler, kept, fill, keep_levels, options, encoding)
    return await _answer(request, turn, drawing, seen)


async def _answer(request: Request, turn: Turn, drawing: Drawing, view: View | None) -> Response:
    """The fills as events, or all of them as a zip file where no view is asked for."""
    service = service_of(request)
    if view:
        return EventSourceResponse(
            fill_events(request, service, turn, drawing, view), headers={"X-Accel-Buffering": "no"}
        )

    async def drawn() -> Result:
        async with aclosing(service.draw(request, turn, drawing)) as arriving:
            async for _ in arriving:
                pass
        return await service.slot.encode(drawing.whole)

    try:
        result = await while_present(request, drawn())
    except Gone:
        raise HTTPException(GONE) from None
    content = await service.slot.encode(lambda: archive(result.files()))
    headers = {"Manyfill-Result": service.results.put(result), **_attachment("fills.zip")}
    return Response(content, media_type=ZIP, headers=headers)


def _attachment(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}


@queued.get(
    "/results/{result}/{name}",
    responses=REFUSALS | {404: {"model": Refusal}, 200: {"content": {PNG: {}, ZIP: {}, "application/json": {}}}},
    response_class=Response,
    dependencies=[Depends(admitted)],
)
async def result_file(
    service: Served,
    result: ResultId,
    name: Annotated[
        str, Path(description="A file of the zip file; or picture.png, mask.png, or all.zip with everything.")
    ],
) -> Response:
    """A file of a result that was drawn a short while ago, at the picture's full size."""
    kept = service.results.get(result)
    if name in (ARCHIVE, SHEET):
        service.check_volume(kept.subject, kept.n, "picture")
    content = await service.slot.encode(kept.file, name)
    if content is None:
        raise HTTPException(404, "this result has no such file; see its all.zip")
    return Response(content, media_type=TYPES["." + name.rpartition(".")[2]], headers=_attachment(name))


@router.get("/model", responses={401: {"model": Refusal}})
async def model(service: Served) -> dict[str, Any]:
    """The model, its latent levels, coarsest first, and what the server allows."""
    config, limits = service.filler.config, service.limits
    return {
        "manyfill": __version__,
        "model": public_name(service.filler.id),
        "size": config.size,
        "channels": config.channels,
        "levels": [{"size": level.size, "latent": level.latent} for level in config.levels],
        "captions": config.captions is not None,
        "limits": {"body": limits.body, "pixels": limits.pixels, "fills": limits.fills},
    }


@router.get("/examples")
async def example_titles() -> dict[str, str]:
    """Photographs to try it with, by name; none without scikit-image."""
    return examples.titles()


@router.get(
    "/examples/{name}", responses={404: {"model": Refusal}, 200: {"content": {PNG: {}}}}, response_class=Response
)
async def example(service: Served, name: Annotated[str, Path(max_length=40)]) -> Response:
    """One of these photographs."""
    content = await service.slot.decode(examples.picture, name)
    if content is None:
        raise HTTPException(
            404, f"{name}: there is no such example; there are {', '.join(examples.titles()) or 'none'}"
        )
    return Response(content, media_type=PNG)
