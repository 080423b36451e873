"""A real HTTP server that answers as a test says and keeps what it was sent."""

import asyncio
import threading
from collections import Counter

from aiohttp import web

USAGE = {"prompt_tokens": 10, "completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 20}}


def completion(content, *, finish="stop", **message):
    choice = {"index": 0, "finish_reason": finish, "message": {"content": content, **message}}
    return web.json_response({"object": "chat.completion", "choices": [choice], "usage": USAGE})


def failure(status, message="no", **headers):
    return web.json_response({"error": {"message": message}}, status=status, headers=headers)


class Server:
    """An OpenAI-compatible server: `answer(prompt, nth)` makes the response, `requests` holds what came."""

    def __init__(self):
        self.answer = lambda prompt, nth: completion(f"answer to {prompt}")
        self.requests, self.seen, self.delay, self.active, self.most = [], Counter(), 0.0, 0, 0
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        self.url = f"http://127.0.0.1:{self.port}/v1"

    async def _start(self):
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._handle)
        app.router.add_post("/openai/deployments/{model}/chat/completions", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return self._runner.addresses[0][1]

    async def _handle(self, request):
        body = await request.json()
        prompt = body["messages"][-1]["content"]
        self.requests.append((body, dict(request.headers)))
        self.seen[prompt] += 1
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await asyncio.sleep(self.delay)
            response = self.answer(prompt, self.seen[prompt])
            if response is None:
                request.transport.close()
                return web.Response()
            return response
        finally:
            self.active -= 1

    def close(self):
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
