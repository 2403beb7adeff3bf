"""Generation by any endpoint that speaks OpenAI's API: a hosted model, or one that vLLM, SGLang or others serve."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from promptcblue_metric.errors import PromptCBLUEError

from ..prompts import Shot, conversation, one_text
from . import BackendSettings, Completion, Failure, Request, refuse
from .encoding import until

#: The key's environment variable, as the ``openai`` client has it.
KEY = "OPENAI_API_KEY"
#: What stands in for a key where none is set: an endpoint of one's own mostly wants none.
_NO_KEY = "none"
#: Statuses that a later try can mend: request time-out, conflict, too many requests; and all of the server's errors.
_RETRIED = (408, 409, 429)
#: Seconds: of the first wait, which doubles with every further one, the longest of these, and the longest that a
#: server may ask for.
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_ASKED = 0.5, 60.0, 600.0
#: So many failures in a row mean that the endpoint is gone, not that single samples are at fault.
_GONE = 20
#: How much of a server's own words a message repeats.
_QUOTED = 300
_WIDE = re.compile(r"[\u2e80-\U0010ffff]")


class OpenAIBackend:
    """Sends several requests at a time and yields answers in the order they come.

    A request that fails in passing is sent again, after a wait that doubles, with chance in it so that requests do
    not come back all at once; where the server says how long to wait, all requests do. The endpoint keeps its
    tokenizer to itself: tokens are counted at one for a Chinese character and one for four others wherever the
    server does not report them.
    """

    def __init__(self, settings: BackendSettings) -> None:
        import openai  # noqa: F401 - its absence is said now, and not after the data was read

        refuse(
            settings,
            adapter=settings.adapter is not None,
            beams_above_1=settings.beams > 1,
            constrained_decoding=settings.constrained,
            dtype=settings.dtype != "auto",
        )
        self.settings, self.server = settings, settings.server
        self.base_url = self.server.base_url or os.environ.get("OPENAI_BASE_URL") or None
        self._key = os.environ.get(KEY, "")
        if not self._key and self.base_url is None:
            raise PromptCBLUEError(
                f"the endpoint wants a key: set {KEY}, or name an endpoint of your own by --base-url"
            )
        self._limit_name = "max_tokens"
        self._reached = False
        self._failures_in_a_row = 0
        self._not_before = 0.0
        self._count: Counter[str] = Counter()

    def identity(self) -> Mapping[str, Any]:
        """The endpoint, its model, prompt and decoding."""
        return {
            "backend": self.settings.name,
            "model": self.settings.model,
            "endpoint": _without_secrets(self.base_url or "https://api.openai.com/v1"),
            "prompt": self.server.endpoint,
            "beams": 1,
            "stop": list(self.settings.stop),
            "context": self.server.context,
        }

    def notes(self) -> Mapping[str, Any]:
        """The client's version, and how tokens are counted."""
        return {"openai": version("openai"), "tokens": "as the server reports them, else estimated from characters"}

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """About how many tokens each target has, its end included."""
        return [_estimate(target) + 1 for target in targets]

    def summary(self) -> list[str]:
        """Tokens and cost of this run, and what did not go well at once."""
        made = self._count
        lines = [f"{made['prompt_tokens']} prompt tokens and {made['new_tokens']} generated ones"]
        if self.server.price_in is not None or self.server.price_out is not None:
            cost = made["prompt_tokens"] * (self.server.price_in or 0) + made["new_tokens"] * (
                self.server.price_out or 0
            )
            lines[0] += f", {cost / 1e6:.4f} at the prices given"
        if made["estimated"]:
            lines.append(f"of {made['estimated']} answers the server reported no tokens: theirs are estimated")
        if made["again"]:
            lines.append(f"{made['again']} times a request had to be sent again")
        return lines

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request, the first one alone, to see whether the endpoint answers at all.

        Raises:
            PromptCBLUEError: the endpoint cannot be reached, refuses the key, or does not know the model; or nothing
                has succeeded for many requests.
        """
        loop = asyncio.new_event_loop()
        results: asyncio.Queue[Completion | Failure | Exception] = asyncio.Queue()
        work = loop.create_task(self._answer_all(requests, results.put_nowait))
        try:
            for _ in requests:
                result = loop.run_until_complete(results.get())
                if isinstance(result, Exception):
                    raise result
                yield result
        finally:
            work.cancel()
            loop.run_until_complete(asyncio.gather(work, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _answer_all(
        self, requests: Sequence[Request], put: Callable[[Completion | Failure | Exception], None]
    ) -> None:
        todo = iter(requests)

        async def work(some: Iterator[Request]) -> None:
            for request in some:
                put(await self._answer(client, request))

        try:
            async with self._client() as client:
                await work(iter([next(todo)]))
                workers = [asyncio.ensure_future(work(todo)) for _ in range(self.server.concurrency)]
                try:
                    await asyncio.gather(*workers)
                finally:
                    for worker in workers:
                        worker.cancel()
                    await asyncio.gather(*workers, return_exceptions=True)
        except Exception as error:  # handed to whoever reads the answers
            put(error)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Any]:
        from openai import AsyncOpenAI, OpenAIError

        try:
            # It would retry by itself, but not an answer that it cannot read.
            client = AsyncOpenAI(
                api_key=self._key or _NO_KEY, base_url=self.base_url, max_retries=0, timeout=self.server.timeout
            )
        except OpenAIError as error:
            raise PromptCBLUEError(f"the openai client cannot start: {self._quoted(error)}") from error
        async with client:
            yield client

    async def _answer(self, client: Any, request: Request) -> Completion | Failure:
        """Ask until there is an answer, or no more use in asking."""
        shots = self._fitting(request)
        for attempt in range(self.server.retries + 1):
            await asyncio.sleep(self._not_before - time.monotonic())
            try:
                # The client's own limit is on silence: a server that drips bytes would hold the request for ever.
                response = await asyncio.wait_for(self._ask(client, request, shots), self.server.timeout)
                self._reached = True
                completion = self._completion(request, shots, response)
            except Exception as error:
                reason, wait = self._judge(error, attempt)
                if wait is None:
                    break
                if attempt < self.server.retries:
                    self._count["again"] += 1
                    await asyncio.sleep(wait)
            else:
                self._failures_in_a_row = 0
                return completion
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _GONE:
            raise PromptCBLUEError(
                f"{self._where()}: the last {_GONE} requests failed, the last one with {reason}; what was predicted so "
                "far is kept, and the same command goes on from there"
            )
        return Failure(request.index, reason)

    async def _ask(self, client: Any, request: Request, shots: Sequence[Shot]) -> Any:
        from openai import BadRequestError

        options: dict[str, Any] = {"model": self.settings.model, "temperature": 0}
        if self.settings.stop:
            options["stop"] = list(self.settings.stop)
        if self.server.endpoint == "completions":
            return await client.completions.create(
                prompt=one_text(request.prompt, shots), max_tokens=request.max_new_tokens, **options
            )
        messages = conversation(request.prompt, shots, self.settings.shot_style)
        try:
            return await client.chat.completions.create(
                messages=messages, **{self._limit_name: request.max_new_tokens}, **options
            )
        except BadRequestError as error:
            # What some servers do not know, OpenAI's newer models insist on.
            if self._limit_name != "max_tokens" or "max_completion_tokens" not in str(error):
                raise
            self._limit_name = "max_completion_tokens"
            return await self._ask(client, request, shots)

    def _judge(self, error: Exception, attempt: int) -> tuple[str, float | None]:
        """What went wrong, in words, and how many seconds to wait before the next try; None for no next try.

        Raises:
            PromptCBLUEError: it would go wrong for every request.
        """
        import openai

        wait = min(_FIRST_WAIT * 2**attempt, _LONGEST_WAIT) * random.uniform(0.5, 1)
        quoted = self._quoted(error)
        if isinstance(error, openai.APIStatusError):
            self._reached = True
            status = error.status_code
            if status in (401, 403):
                raise PromptCBLUEError(f"{self._where()} refuses the key in {KEY} ({status}): {quoted}") from None
            if status == 404:
                raise PromptCBLUEError(
                    f"{self._where()} does not have model '{self.settings.model}' or no {self.server.endpoint} (404): "
                    f"{quoted}; look at --base-url, --model and --endpoint"
                ) from None
            asked = _retry_after(error.response.headers)
            if (status not in _RETRIED and status < 500) or (asked or 0) > _LONGEST_ASKED:
                return f"status {status}: {quoted}", None
            if asked is not None:
                self._not_before = max(self._not_before, time.monotonic() + asked)
            return f"status {status}: {quoted}", wait if asked is None else asked
        if isinstance(error, (asyncio.TimeoutError, openai.APITimeoutError)):
            return f"no answer within {self.server.timeout:g} s", wait
        if isinstance(error, openai.APIConnectionError):
            if not self._reached and _never_connected(error):
                raise PromptCBLUEError(
                    f"{self._where()} cannot be reached: {self._quoted(error.__cause__ or error)}; look at --base-url"
                ) from None
            return f"the connection broke: {self._quoted(error.__cause__ or error)}", wait
        if isinstance(error, _FilteredError):
            return quoted, None
        # Whatever else the client raises, it is about an answer that is not what the API promises.
        return f"the answer cannot be read: {quoted}", wait

    def _completion(self, request: Request, shots: Sequence[Shot], response: Any) -> Completion:
        """Read a response.

        Raises:
            Exception: of any kind, if it is not what the API promises.
        """
        choice = response.choices[0]
        text = choice.text if self.server.endpoint == "completions" else choice.message.content
        cut_off = choice.finish_reason == "length"
        if choice.finish_reason == "content_filter":
            raise _FilteredError("the endpoint's content filter stopped the answer")
        if text is None and cut_off:
            text = ""  # a model that reasons used up the limit before it began to answer
        if not isinstance(text, str):
            raise TypeError("it holds no text")
        usage = getattr(response, "usage", None)
        if usage is None or usage.prompt_tokens is None or usage.completion_tokens is None:
            self._count["estimated"] += 1
            prompt_tokens, new_tokens = _estimate(one_text(request.prompt, shots)), _estimate(text)
        else:
            prompt_tokens, new_tokens = int(usage.prompt_tokens), int(usage.completion_tokens)
        self._count["prompt_tokens"] += prompt_tokens
        self._count["new_tokens"] += new_tokens
        return Completion(
            index=request.index,
            text=until(text, self.settings.stop),
            finish_reason="length" if cut_off else "stop",
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens,
            dropped=len(request.shots) - len(shots),
        )

    def _fitting(self, request: Request) -> Sequence[Shot]:
        """The last demonstrations that fit into the context beside prompt and answer, where its size is known."""
        if self.server.context is None:
            return request.shots
        room = self.server.context - request.max_new_tokens
        counts = (
            dropped
            for dropped in range(len(request.shots))
            if _estimate(one_text(request.prompt, request.shots[dropped:])) <= room
        )
        return request.shots[next(counts, len(request.shots)) :]

    def _where(self) -> str:
        return _without_secrets(self.base_url or "https://api.openai.com/v1")

    def _quoted(self, error: BaseException) -> str:
        """An error's words in one short line without the key, which servers may repeat."""
        words = " ".join(str(getattr(error, "message", None) or error).split()) or type(error).__name__
        if self._key:
            words = words.replace(self._key, f"${KEY}")
        return words[:_QUOTED]


class _FilteredError(Exception):
    """The endpoint will not answer this prompt."""


def _estimate(text: str) -> int:
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // 4)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: ``Retry-After`` as a number or a date, or ``retry-after-ms``."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if not value:
            return None
        if re.fullmatch(r"\s*\d+(\.\d*)?\s*", value):
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _never_connected(error: BaseException) -> bool:
    """Whether no connection was made, by what the HTTP library, whichever the client uses, calls it."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol", "InvalidURL"):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _without_secrets(url: str) -> str:
    """An address without user name, password and query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def load(settings: BackendSettings) -> OpenAIBackend:
    """The backend; the endpoint is first asked with the first request."""
    return OpenAIBackend(settings)
