"""`python3 -m foreign_receiver run …` receives; `python3 -m foreign_receiver decode FILE` prints a segment's readings."""

import argparse
import logging
import signal
import sys
import time

from .postcard import Malformed, Newer
from .segment import Missing, decode


def main() -> int:
    parser = argparse.ArgumentParser(prog="foreign_receiver")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="receive from a broker into a SQLite file")
    run.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    run.add_argument("--prefix", default="varved")
    run.add_argument("--db", default="fleet.sqlite", help="made where it isn't there")
    run.add_argument("--client-id", default="foreign-receiver")
    run.add_argument("--verbose", action="store_true")
    one = commands.add_parser("decode", help="print the readings of segments")
    one.add_argument("file", help="one body as it is; or lines of NAME and hex, as in tests/data/golden")
    args = parser.parse_args()
    if args.command == "decode":
        return show(args.file)
    logging.basicConfig(level=logging.DEBUG if args.verbose else logging.INFO, format="%(levelname)s %(message)s")
    return receive(args)


def show(path: str) -> int:
    """Prints series id, clock, time in ns and value of each reading; the exit code is 65 where a body is bad."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        lines = [line.split() for line in content.decode("ascii").splitlines()]
        bodies = [(name, bytes.fromhex(digits)) for name, digits in lines]
    except ValueError:
        bodies = [(path, content)]
    for name, body in bodies:
        try:
            segment = decode(body)
        except (Malformed, Newer) as cause:
            print(f"{name}: {cause}", file=sys.stderr)
            return 65
        print(f"# {name}: {segment.range[0]}..={segment.range[1]} {segment.loss or ''}".rstrip())
        for id, (label, unit, mantissa, exponent) in segment.names.items():
            print(f"# series {id}: {label} [{unit}], raw × {mantissa} × 10^{exponent}")
        for column in segment.columns:
            clock = "utc" if column.boot is None else f"boot {column.boot}"
            for stamp, value in zip(column.stamps, column.values):
                print(column.series, clock, stamp, value.name if isinstance(value, Missing) else repr(value), sep="\t")
    return 0


def receive(args: argparse.Namespace) -> int:
    """Connects, again and again, until SIGTERM or Ctrl-C."""
    import paho.mqtt.client as mqtt

    from .archive import Archive
    from .receiver import Receiver

    version = {"callback_api_version": mqtt.CallbackAPIVersion.VERSION1} if hasattr(mqtt, "CallbackAPIVersion") else {}
    # A persistent session: the broker keeps what comes while we are away. paho sends the PUBACK when on_message returns,
    # which is after our commit.
    client = mqtt.Client(client_id=args.client_id, clean_session=False, **version)
    receiver = Receiver(Archive(args.db), args.prefix, lambda *it: client.publish(it[0], it[1], qos=1, retain=it[2]))

    def on_connect(client, _userdata, _flags, code) -> None:
        logging.info("connected: %s", mqtt.connack_string(code))
        client.subscribe([(f"{args.prefix}/v1/+/{kind}", 1) for kind in ("state", "catalog/+", "segment")])

    client.on_connect = on_connect
    client.on_message = lambda _client, _userdata, m: receiver.hear(m.topic, m.payload, time.monotonic())
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda n, _frame: stopping.append(n))

    host, _, port = args.broker.rpartition(":")
    client.connect_async(host, int(port))
    connected = False
    while not stopping:
        if not connected or client.loop(timeout=0.5) != mqtt.MQTT_ERR_SUCCESS:
            try:
                client.reconnect()
                connected = True
            except OSError as cause:
                logging.warning("no broker at %s: %s", args.broker, cause)
                connected = False
                time.sleep(1)
        receiver.tick(time.monotonic())
    client.disconnect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
