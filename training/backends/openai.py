"""Generation by any endpoint that speaks OpenAI's API: a hosted model, or one that vLLM, SGLang or others serve."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
from base64 import b64encode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit, urlunsplit

from promptcblue_metric.errors import PromptCBLUEError

from ..prompts import Shot, conversation, one_text, split_thought
from . import LOOSE, THINKING, Backend, BackendSettings, Completion, Failure, FinishReason, Request, refuse
from .encoding import until

#: The key's environment variable, as the ``openai`` client has it.
KEY = "OPENAI_API_KEY"
#: What stands in for a key where none is set: an endpoint of one's own mostly wants none.
_NO_KEY = "none"
_HOSTED = "https://api.openai.com/v1"
#: So many failures in a row mean that the endpoint is gone, not that single samples are at fault.
_GONE = 20
_KEPT = "what was predicted so far is kept, and the same command goes on from there"
#: Letters of the shortest secret that is masked in messages, and of the shortest that no answer holds by chance.
_SHORTEST, _TELLING = 4, 12
#: How much of a server's own words a message repeats.
_QUOTED = 300
_WIDE = re.compile(r"[\u2e80-\U0010ffff]")
#: Codes and words of endpoints: no more money; a filter stops a prompt or an answer; a parameter is not known.
_NO_MONEY = re.compile(r"insufficient_?(quota|balance|credits?)|billing_(hard_limit|not_active)|arrearage", re.I)
_FILTERED = re.compile(r"content_?filter|content_policy|data_?inspection_?failed|moderation|flagged", re.I)
_NOT_KNOWN = re.compile(
    r"unsupported|not (support|permit|allow|recogni)|unrecogni|unknown|unexpected|extra_forbidden|extra inputs", re.I
)


def _thinking_switches(on: bool) -> dict[str, object]:
    """How endpoints are told to think or not to: vLLM and SGLang, Qwen's, DeepSeek's and those after them."""
    return {
        "chat_template_kwargs": {"enable_thinking": on, "thinking": on},
        "enable_thinking": on,
        "thinking": {"type": "enabled" if on else "disabled"},
    }


class OpenAIBackend(Backend):
    """Sends several requests at a time and yields answers in the order they come.

    The client tries again what fails in passing, and waits as the server asks; it is helped to see that an answer
    which cannot be read, or drips in for ever, is such a failure. What an endpoint refuses to be told is learnt from
    its first refusal. It keeps its tokenizer to itself: tokens are counted at one for a Chinese character and one for
    four others wherever the server does not report them.
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
        self.base_url = (self.server.base_url or os.environ.get("OPENAI_BASE_URL") or "").strip() or None
        self._key = os.environ.get(KEY, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]*", self._key):
            raise PromptCBLUEError(f"the key in {KEY} holds characters that no key has; copy it anew")
        secrets = _secrets(self._key, self.base_url)
        #: For messages; and for answers, of what no answer holds by chance.
        self.mask, self.mask_long = _masks(secrets, _SHORTEST), _masks(secrets, _TELLING)
        if not self._key and self.base_url is None:
            raise PromptCBLUEError(
                f"the endpoint wants a key: set {KEY}, or name an endpoint of your own by --base-url"
            )
        self._options = self._asked_for()
        self._limit_name = "max_tokens"
        self._reached = False
        self._failures_in_a_row = 0
        self._count: Counter[str] = Counter()
        self._models: Counter[str] = Counter()

    def _asked_for(self) -> dict[str, object]:
        """What every request says beside prompt and limit: nothing that was not asked for."""
        settings, server = self.settings, self.server
        try:
            extra = json.loads(server.extra_body or "{}")
        except ValueError:
            extra = None
        if not isinstance(extra, dict):
            raise PromptCBLUEError(f"--extra-body: expected a JSON object, found {server.extra_body!r:.80}")
        options = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "reasoning_effort": server.reasoning_effort,
            "stop": list(settings.stop) or None,
        }
        switches = {} if settings.thinking == "auto" else _thinking_switches(settings.thinking == "on")
        return {**{name: value for name, value in options.items() if value is not None}, **switches, **extra}

    def identity(self) -> Mapping[str, object]:
        """The endpoint, its model, prompt and decoding."""
        return {
            "backend": self.settings.name,
            "model": self.settings.model,
            "endpoint": self.where,
            "prompt": self.server.endpoint,
            "beams": 1,
            "stop": list(self.settings.stop),
            "context": self.server.context,
            "reasoning_effort": self.server.reasoning_effort,
            "extra_body": self.mask(self.server.extra_body or "") or None,
            **self.settings.decoding(),
        }

    def notes(self) -> Mapping[str, object]:
        """The client's version, and how tokens are counted."""
        return {"openai": version("openai"), "tokens": "as the server reports them, else estimated from characters"}

    def count_tokens(self, targets: Sequence[str]) -> list[int]:
        """About how many tokens each target has, its end included."""
        return [_estimate(target) + 1 for target in targets]

    def least_limit(self, task: str) -> int:
        """What a model that may think needs, if its context, where it is known, holds it."""
        return min(LOOSE if self.settings.thinking == "off" else THINKING, (self.server.context or THINKING * 2) // 2)

    def summary(self) -> list[str]:
        """Tokens and cost of this run, which models answered, and what did not go well at once."""
        made = self._count
        lines = [f"{made['prompt_tokens']} prompt tokens and {made['new_tokens']} generated ones"]
        price_in, price_out = self.server.price_in, self.server.price_out
        if price_in is not None or price_out is not None:
            cost = made["prompt_tokens"] * (price_in or 0) + made["new_tokens"] * (price_out or 0)
            lines[0] += f", {cost / 1e6:.4f} at the prices given"
        if self._models.keys() - {self.settings.model}:
            lines.append("answered by " + ", ".join(f"{model} ({count})" for model, count in self._models.items()))
        if made["estimated"]:
            lines.append(f"of {made['estimated']} answers the server reported no tokens: theirs are estimated")
        if made["again"]:
            lines.append(f"{made['again']} times a request had to be sent again")
        if made["thoughts"] and self.settings.thinking == "off":
            lines.append(f"{made['thoughts']} answers came with a thought, although --thinking is off")
        return lines

    def generate(self, requests: Sequence[Request]) -> Iterator[Completion | Failure]:
        """Answer every request, the first one alone, to see whether the endpoint answers at all.

        Raises:
            PromptCBLUEError: the endpoint cannot be reached, refuses the key, has no more quota, does not know the
                model or what it was told; or nothing has succeeded for many requests.
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
            tasks = asyncio.all_tasks(loop) | {work}
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _answer_all(
        self, requests: Sequence[Request], put: Callable[[Completion | Failure | Exception], None]
    ) -> None:
        todo = iter(requests)

        async def work(client: Any, some: Iterator[Request]) -> None:
            for request in some:
                put(await self._answer(client, request))

        try:
            async with self._client() as client:
                await work(client, islice(todo, 1))
                await asyncio.gather(*(work(client, todo) for _ in range(self.server.concurrency)))
        except Exception as error:  # handed to whoever reads the answers
            put(error)

    def _client(self) -> Any:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient, OpenAIError

        # The client's HTTP library, which is not the same one in every version.
        http = import_module(DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
        backend = self

        class Client(DefaultAsyncHttpxClient):
            async def send(self, request: Any, **options: Any) -> Any:
                backend._count["again"] += request.headers.get("x-stainless-retry-count", "0") != "0"
                try:
                    # Its own limit is on silence: a server that drips bytes would hold the request for ever.
                    response = await asyncio.wait_for(super().send(request, **options), backend.server.timeout)
                except asyncio.TimeoutError:
                    raise http.ReadTimeout("no answer in time", request=request) from None
                except (http.ConnectError, http.ConnectTimeout, http.UnsupportedProtocol) as error:
                    if backend._reached:
                        raise
                    raise _NobodyThere(backend.quoted(error)) from None
                backend._reached = True
                if response.status_code == 200:
                    try:
                        _message(response.json())
                    except Exception as error:
                        words = f"{error}: {backend.quoted(response.text)}" if response.text.strip() else "it is empty"
                        raise http.DecodingError(words, request=request) from None
                elif _NO_MONEY.search(response.text):
                    response.headers["x-should-retry"] = "false"
                return response

        # The HTTP library logs addresses as they are.
        parts = urlsplit(self.base_url or _HOSTED)
        pair, _, host = parts.netloc.rpartition("@")
        user, _, password = map(unquote, pair.partition(":"))
        try:
            return AsyncOpenAI(
                api_key=self._key or _NO_KEY,
                base_url=urlunsplit(parts._replace(netloc=host)),
                max_retries=self.server.retries,
                timeout=self.server.timeout,
                http_client=Client(timeout=self.server.timeout, auth=(user, password) if user else None),
            )
        except (OpenAIError, ValueError) as error:
            raise PromptCBLUEError(f"the openai client cannot start: {self.quoted(error)}") from None

    async def _answer(self, client: Any, request: Request) -> Completion | Failure:
        """Ask until there is an answer, or no more use in asking."""
        shots = self._fitting(request)
        path = "/completions" if self.server.endpoint == "completions" else "/chat/completions"
        reason: str | None = None
        while reason is None:
            body = {**self._body(request, shots), **self._options}
            try:
                completion = self._completion(request, shots, await client.post(path, body=body, cast_to=object))
            except _NobodyThere as error:
                raise PromptCBLUEError(f"{self.where} cannot be reached: {error}; look at --base-url") from None
            except Exception as error:
                status = getattr(error, "status_code", None)
                words = getattr(getattr(error, "response", None), "text", "")
                if status in (400, 403) and _FILTERED.search(words):
                    # An answer, if none that one would like: it would be the same another time.
                    self._failures_in_a_row = 0
                    return Completion(request.index, "", "refusal", _estimate(request.prompt), 0)
                if not (status in (400, 422) and self._learns(error, words, body)):
                    reason = self._judge(error, status, words)
            else:
                self._failures_in_a_row = 0
                return completion
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= _GONE:
            raise PromptCBLUEError(
                f"{self.where}: the last {_GONE} requests failed, the last one with {reason}; {_KEPT}"
            )
        return Failure(request.index, reason)

    def _body(self, request: Request, shots: Sequence[Shot]) -> dict[str, object]:
        settings = self.settings
        if self.server.endpoint == "completions":
            asked: dict[str, object] = {"prompt": one_text(request.prompt, shots, settings.system)}
        else:
            asked = {"messages": conversation(request.prompt, shots, settings.shot_style, settings.system)}
        return {"model": settings.model, **asked, self._limit_name: request.max_new_tokens}

    def _learns(self, error: Exception, words: str, body: Mapping[str, object]) -> bool:
        """Whether an endpoint refuses to be told something that it need not be told, which is left out from now on."""
        if not _NOT_KNOWN.search(words):
            return False
        param = getattr(error, "param", None)
        named = (name for name in body.keys() - {"model", "messages", "prompt"} if re.search(rf"\b{name}\b", words))
        other = "max_tokens" if "max_completion_tokens" in words else None
        name = min(named, key=lambda name: (name != param, name), default=other)
        if name is None:
            return False
        if name == "max_tokens":
            # What some servers do not know, OpenAI's newer models insist on.
            self._limit_name = "max_completion_tokens"
            return True
        if name not in ("stop", *_thinking_switches(True)):
            raise PromptCBLUEError(f"{self.where} refuses {name}: {self.quoted(error)}; leave it out") from None
        self._options.pop(name, None)  # answers are cut at stop texts when they arrive
        if name != "stop" and not self._options.keys() & _thinking_switches(True).keys():
            raise PromptCBLUEError(
                f"{self.where} has no switch for thinking that is known here ({self.quoted(error)}); leave out "
                "--thinking, and try --reasoning-effort or --extra-body"
            ) from None
        return True

    def _judge(self, error: Exception, status: int | None, words: str) -> str:
        """What went wrong, in words."""
        import openai

        if status is not None:
            quoted = f"({status}): {self.quoted(words if isinstance(getattr(error, 'body', None), str) else error)}"
            if status in (401, 403):
                raise PromptCBLUEError(f"{self.where} refuses the key in {KEY} {quoted}") from None
            if status == 402 or _NO_MONEY.search(words):
                raise PromptCBLUEError(f"{self.where} has no more quota for you {quoted}; {_KEPT}") from None
            if status == 404:
                raise PromptCBLUEError(
                    f"{self.where} does not have model '{self.settings.model}' or no {self.server.endpoint} {quoted}; "
                    "look at --base-url, --model and --endpoint"
                ) from None
            return f"status {status}: {quoted.partition(': ')[2]}"
        if isinstance(error, openai.APITimeoutError):
            return f"no answer within {self.server.timeout:g} s"
        cause = error.__cause__ or error
        if isinstance(error, openai.APIConnectionError) and type(cause).__name__ != "DecodingError":
            return f"the connection broke: {self.quoted(cause)}"
        if not self._count["answers"]:
            raise PromptCBLUEError(
                f"{self.where} does not answer as OpenAI's API does: {self.quoted(cause)}; look at --base-url"
            ) from None
        return f"the answer cannot be read: {self.quoted(cause)}"

    def _completion(self, request: Request, shots: Sequence[Shot], response: dict[str, Any]) -> Completion:
        text, thought, finish_reason = _message(response)
        usage = response.get("usage") or {}
        prompt_tokens, new_tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(prompt_tokens, int) or not isinstance(new_tokens, int):
            self._count["estimated"] += 1
            prompt_tokens = _estimate(one_text(request.prompt, shots, self.settings.system))
            new_tokens = _estimate(thought) + _estimate(text)
        details = usage.get("completion_tokens_details") or {}
        thought_tokens = min(details.get("reasoning_tokens") or _estimate(thought), new_tokens)
        if finish_reason == "length" and not text and thought_tokens:
            finish_reason = "thought"
        self._count += Counter(
            prompt_tokens=prompt_tokens, new_tokens=new_tokens, answers=1, thoughts=int(bool(thought_tokens))
        )
        model = self.mask(str(response.get("model") or ""))
        self._models[model or self.settings.model] += 1
        return Completion(
            index=request.index,
            text=until(self.mask_long(text), self.settings.stop),
            finish_reason=finish_reason,
            prompt_tokens=prompt_tokens,
            new_tokens=new_tokens - thought_tokens,
            dropped=len(request.shots) - len(shots),
            thought=self.mask_long(thought),
            thought_tokens=thought_tokens,
            model=model,
        )

    def _fitting(self, request: Request) -> Sequence[Shot]:
        """The last demonstrations that fit into the context beside prompt and answer, where its size is known."""
        if self.server.context is None:
            return request.shots
        room = self.server.context - request.max_new_tokens
        counts = (
            dropped
            for dropped in range(len(request.shots))
            if _estimate(one_text(request.prompt, request.shots[dropped:], self.settings.system)) <= room
        )
        return request.shots[next(counts, len(request.shots)) :]

    @property
    def where(self) -> str:
        """The address without user name, password and query."""
        parts = urlsplit(self.base_url or _HOSTED)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

    def quoted(self, said: BaseException | str) -> str:
        """Words of an error or a server in one short line, without mark-up, without the key, which servers repeat."""
        words = said if isinstance(said, str) else str(getattr(said, "message", None) or said) or type(said).__name__
        words = re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^<>]*>", " ", self.mask(words))
        return self.mask(" ".join(words.split()))[:_QUOTED]


class _NobodyThere(BaseException):
    """No connection was ever made. The client would try again after any `Exception`."""


def _secrets(key: str, url: str | None) -> set[str]:
    """A key, and the user name, password and query of an address."""
    parts = urlsplit(url or "")
    pair = parts.netloc.rpartition("@")[0]
    words = {key, pair, unquote(pair), unquote(pair.partition(":")[2]), *parts.query.split("&")}
    return {word for word in words | {value for _, value in parse_qsl(parts.query)} if len(word) >= _SHORTEST}


def _forms(word: str) -> Iterator[str]:
    """A word as it is, and as JSON, Python, HTML, addresses and headers write it."""
    raw = word.encode()
    json_form, address = json.dumps(word)[1:-1], quote(word, safe="")
    yield from (word, repr(word)[1:-1], html.escape(word), quote_plus(word), raw.hex(), word[::-1])
    yield from (json_form, json.dumps(json_form)[1:-1], address, quote(address, safe=""))
    yield "".join(f"\\u{ord(each):04x}" for each in word)
    yield "".join(f"&#{ord(each)};" for each in word)
    yield from (each.decode().rstrip("=") for each in (b64encode(raw), urlsafe_b64encode(raw)))


def _masks(secrets: Iterable[str], least: int) -> Callable[[str], str]:
    """Puts the key's variable in place of secrets, in any form of so many letters, in which servers and clients repeat
    them: in capitals or not, whole with white space in it, or its beginning and what hangs on to it.
    """
    forms = {form.strip() for word in secrets for form in _forms(word)}
    words = sorted((form for form in forms if len(form) >= least), key=len, reverse=True)
    whole = [r"\s*".join(map(re.escape, "".join(word.split()))) for word in words]
    begun = [rf"{re.escape(word[:_TELLING])}[^\s'\"<>,;)}}\]]*" for word in words if len(word) > _TELLING]
    pattern = re.compile("|".join([*whole, *begun]) or "(?!)", re.IGNORECASE)
    return lambda text: pattern.sub(f"${KEY}", text)


def _message(body: Any) -> tuple[str, str, FinishReason]:
    """Text, thought and end of a response, in any of the shapes that endpoints give it."""
    if not isinstance(body, dict) or not body.get("choices"):
        raise TypeError("it holds no choices")
    choice = body["choices"][0]
    message = choice.get("message") or {}
    content = choice["text"] if "text" in choice else message.get("content")
    thought = message.get("reasoning_content") or message.get("reasoning") or ""
    if isinstance(content, list):
        thought += "".join(_texts(part.get("thinking")) for part in content)
        content = "".join(_texts(part) for part in content if "thinking" not in part)
    ended = choice.get("finish_reason")
    if ended == "content_filter" or message.get("refusal"):
        return str(message.get("refusal") or content or ""), thought, "refusal"
    if content is None and (thought or ended == "length"):
        content = ""
    if not isinstance(content, str) or not isinstance(thought, str):
        raise TypeError("it holds no text")
    inner, content, closed = split_thought(content)
    return content, thought + inner, ("length" if ended == "length" else "stop") if closed else "thought"


def _texts(part: Any) -> str:
    """The text of a part of an answer, or of parts in it."""
    if isinstance(part, list):
        return "".join(map(_texts, part))
    return str(part.get("text") or "") if isinstance(part, dict) else part or ""


def _estimate(text: str) -> int:
    wide = len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // 4)


load = OpenAIBackend
