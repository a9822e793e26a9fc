"""mosec with a model that does nothing."""

from mosec import Server, Worker


class Nothing(Worker):
    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[int]:
        return [len(each) for each in data]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Nothing, num=1, max_batch_size=16, max_wait_time=1)
    server.run()
