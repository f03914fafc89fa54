"""A web application that builds its customers' code.

    pip install function-builder standardwebhooks starlette uvicorn
    SAAS_DATA=data uvicorn --app-dir examples/saas app:app

`SAAS_DATA` is a directory with `customers.json`, and a `Dockerfile` that builds the folder `code`.
"""

import asyncio
import hashlib
import hmac
import io
import json
import os
import re
import sqlite3
import sys
import uuid
import zipfile
from contextlib import asynccontextmanager
from pathlib import Path

from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from function_builder import AsyncClient, ClientError, ContextError, Refused

DATA = Path(os.environ["SAAS_DATA"])
BUILDER_URL = os.environ.get("BUILDER_URL", "http://127.0.0.1:8080")
REGISTRY = os.environ.get("REGISTRY", "127.0.0.1:5000")
# Where the builder reaches this program.
OWN_URL = os.environ.get("OWN_URL", "http://127.0.0.1:8000")
MAX_ZIP_BYTES, MAX_CODE_BYTES, MAX_CALLBACK_BYTES = 20_000_000, 100_000_000, 20_000
PAUSE_SECONDS = 30

CUSTOMERS = json.loads((DATA / "customers.json").read_text())
# One tenant of the builder for each customer: with secrets, quotas and caches of its own.
BUILDERS = {
    name: AsyncClient(
        BUILDER_URL,
        payload_secret=customer["payload_secret"].encode(),
        headers={"X-Build-Tenant": name},
    )
    for name, customer in CUSTOMERS.items()
}

database = sqlite3.connect(DATA / "app.db", isolation_level=None)
database.row_factory = sqlite3.Row
database.execute(
    "CREATE TABLE IF NOT EXISTS deployments (id TEXT PRIMARY KEY, customer TEXT, image TEXT UNIQUE,"
    " state TEXT DEFAULT 'new', build TEXT, digest TEXT, error TEXT)"
)
tasks = set()


async def deploy(request):
    """Store a customer's zip, and answer before anything is built."""
    customer, app = customer_of(request), request.path_params["app"]
    if not re.fullmatch(r"[a-z0-9]{1,40}", app):
        raise HTTPException(400, "an app's name is up to 40 lower-case letters and digits")
    deployment = uuid.uuid4().hex
    content = await read(request, MAX_ZIP_BYTES)
    try:
        unpack(content)
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    zip_of(deployment).write_bytes(content)
    # The image's name leads from a callback to its deployment.
    image = f"{REGISTRY}/{customer}/{app}:{deployment}"
    database.execute(
        "INSERT INTO deployments (id, customer, image) VALUES (?, ?, ?)",
        (deployment, customer, image),
    )
    start(deployment)
    return JSONResponse(show(deployment, customer), 202)


def start(deployment):
    task = asyncio.create_task(submit(deployment))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def submit(deployment):
    """Send a deployment to the builder, whose queue has it from then on.

    This may happen twice, if this program ends before it has stored the build's id. The
    deployment's id is the idempotency key, so there is one build all the same.
    """
    row = find(deployment)
    content = await asyncio.to_thread(zip_of(deployment).read_bytes)
    files = {"Dockerfile": (DATA / "Dockerfile").read_bytes(), **unpack(content)}
    while True:
        try:
            build = await BUILDERS[row["customer"]].submit(
                files=files,
                image=row["image"],
                idempotency_key=deployment,
                callback_url=f"{OWN_URL}/hooks/{row['customer']}",
            )
            # A callback may have come first.
            database.execute(
                "UPDATE deployments SET build = ? WHERE id = ?", (build.id, deployment)
            )
            break
        except (ContextError, Refused) as error:
            if getattr(error, "retry_after", None) is None:
                end(row["customer"], row["image"], "failed", error=str(error))
                break
        except ClientError as error:
            print(f"{deployment} waits for the builder: {error}", file=sys.stderr)
        await asyncio.sleep(PAUSE_SECONDS)
    zip_of(deployment).unlink()


def end(customer, image, state, digest="", error=""):
    """Note how a build ended, once, because a callback may come twice."""
    changed = database.execute(
        "UPDATE deployments SET state = ?, digest = ?, error = ?"
        " WHERE customer = ? AND image = ? AND state = 'new'",
        (state, digest, error, customer, image),
    )
    if changed.rowcount and state == "live":
        print(f"run {image}@{digest}", flush=True)  # here your platform starts the customer's app


async def callback(request):
    """Receive the end of a build."""
    customer = request.path_params["customer"]
    body = await read(request, MAX_CALLBACK_BYTES)
    try:
        secret = CUSTOMERS[customer]["webhook_secret"]
        event = Webhook(secret).verify(body, dict(request.headers))
    except (KeyError, ValueError, WebhookVerificationError) as error:
        raise HTTPException(401, f"not a callback for {customer}: {error}") from None
    build = event["data"]
    if build["status"] == "success":
        end(customer, build["image"], "live", build["digest"])
    else:
        end(customer, build["image"], "failed", error=build.get("error", build["status"]))
    return Response(status_code=204)


async def deployment(request):
    return JSONResponse(show(request.path_params["deployment"], customer_of(request)))


async def log(request):
    """Stream the log of a build, while it is queued, while it runs, and afterwards."""
    customer = customer_of(request)
    row = find(request.path_params["deployment"], customer)
    if row["build"] is None and row["state"] == "failed":
        return PlainTextResponse(row["error"])
    if row["build"] is None:
        raise HTTPException(
            409, "the builder does not have this deployment yet", {"Retry-After": "1"}
        )

    async def lines():
        async for progress in BUILDERS[customer].handle(row["build"]).log():
            for line in progress.log:
                yield f"{line}\n"

    return StreamingResponse(lines(), media_type="text/plain")


def unpack(content):
    """The files of a zip, as the folder `code`; ValueError if they are too large or not a zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = [entry for entry in archive.infolist() if not entry.is_dir()]
            if sum(entry.file_size for entry in files) > MAX_CODE_BYTES:
                raise ValueError(f"the code has more than {MAX_CODE_BYTES} bytes")
            return {f"code/{entry.filename}": archive.read(entry) for entry in files}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"not a zip: {error}") from None


async def read(request, most):
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise HTTPException(413, f"more than {most} bytes")
    return bytes(body)


def customer_of(request):
    """Whose token a request has."""
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    digest = hashlib.sha256(token.encode()).hexdigest()
    for name, customer in CUSTOMERS.items():
        if hmac.compare_digest(digest, customer["token_sha256"]):
            return name
    raise HTTPException(401, "the bearer token is missing or wrong")


def find(deployment, customer=None):
    row = database.execute("SELECT * FROM deployments WHERE id = ?", (deployment,)).fetchone()
    if row is None or customer not in (None, row["customer"]):
        raise HTTPException(404, "there is no such deployment")
    return row


def show(deployment, customer):
    return {key: value for key, value in dict(find(deployment, customer)).items() if value}


def zip_of(deployment):
    return DATA / f"{deployment}.zip"


@asynccontextmanager
async def lifespan(_):
    # What the builder did not get before this program ended.
    for row in database.execute(
        "SELECT id FROM deployments WHERE build IS NULL AND state != 'failed'"
    ):
        start(row["id"])
    yield
    for builder in BUILDERS.values():
        await builder.close()


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", lambda _: FileResponse(Path(__file__).with_name("page.html"))),
        Route("/apps/{app}", deploy, methods=["POST"]),
        Route("/deployments/{deployment}", deployment),
        Route("/deployments/{deployment}/log", log),
        Route("/hooks/{customer}", callback, methods=["POST"]),
    ],
)
