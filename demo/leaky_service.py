"""A small web shop that leaks: what `cargo xtask demo` profiles until it is killed.

    python leaky_service.py [REQUESTS]

Real requests over localhost, several server threads, a cache that is bounded, a log that is
trimmed, and one mistake: every visitor gets a session, and sessions never expire.
"""

import http.client
import json
import random
import sys
import threading
from collections import OrderedDict, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRODUCTS = 500
CLIENTS = 4


class PageCache:
    """Bounded: the least recently used page goes first."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.pages = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key, render):
        with self.lock:
            if key in self.pages:
                self.pages.move_to_end(key)
                return self.pages[key]
        page = render(key)
        with self.lock:
            self.pages[key] = page
            while len(self.pages) > self.capacity:
                self.pages.popitem(last=False)
        return page


class Session:
    def __init__(self, visitor):
        self.visitor = visitor
        # The recommendations of one visitor, to be thrown away with the session. If it ever goes.
        self.recommendations = bytearray(96 * 1024)
        self.cart = [{"product": product, "count": 1} for product in range(5)]


class SessionStore:
    """The leak: nothing ever removes a session."""

    def __init__(self):
        self.sessions = {}
        self.lock = threading.Lock()

    def start(self, visitor):
        session = Session(visitor)
        with self.lock:
            self.sessions[visitor] = session
        return session


class Shop:
    def __init__(self):
        self.cache = PageCache(capacity=200)
        self.sessions = SessionStore()
        self.log = deque(maxlen=1000)

    def render_product(self, product):
        reviews = [{"stars": star % 5 + 1, "text": "well made " * (star % 7)} for star in range(60)]
        items = "".join(f"<li>{review['stars']}: {review['text']}</li>" for review in reviews)
        return f"<html><h1>Product {product}</h1><ul>{items}</ul></html>".encode()

    def handle(self, path, visitor):
        session = self.sessions.start(visitor)
        page = self.cache.get(int(path.rsplit("/", 1)[1]), self.render_product)
        self.log.append(json.dumps({"visitor": visitor, "path": path, "cart": session.cart}))
        return page


SHOP = Shop()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet an answer: header and body apart would wait for each other's acknowledgement.
    wbufsize = -1

    def do_GET(self):
        body = SHOP.handle(self.path, self.headers["X-Visitor"])
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


def browse(port, client, requests):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    chance = random.Random(client)
    for request in range(requests):
        product = int(chance.paretovariate(1.2)) % PRODUCTS
        connection.request("GET", f"/product/{product}", headers={"X-Visitor": f"{client}-{request}"})
        connection.getresponse().read()
        if client == 0 and request % 500 == 0:
            count = len(SHOP.sessions.sessions)
            held = sum(len(session.recommendations) for session in list(SHOP.sessions.sessions.values()))
            print(f"{count:6} requests served, sessions hold {held / 2**20:.0f} MiB", flush=True)
    connection.close()


def main():
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="server", daemon=True).start()
    port = server.server_address[1]
    clients = [
        threading.Thread(target=browse, args=(port, client, requests // CLIENTS), name=f"client-{client}")
        for client in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    server.shutdown()


if __name__ == "__main__":
    main()
