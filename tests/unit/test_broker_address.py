import pytest

from broker.address import AddressError, BrokerAddress


def test_an_address_is_read_with_its_login() -> None:
    address = BrokerAddress.parse("mqtt://ann:p%40ss@broker.example:1884")
    assert address == BrokerAddress("broker.example", 1884, user="ann", password="p@ss")


@pytest.mark.parametrize(("url", "port", "tls"), [("mqtt://h", 1883, False), ("mqtts://h/", 8883, True)])
def test_ports_have_defaults(url: str, *, port: int, tls: bool) -> None:
    address = BrokerAddress.parse(url)
    assert (address.port, address.tls, address.user) == (port, tls, None)


def test_a_password_never_prints() -> None:
    address = BrokerAddress.parse("mqtts://ann:hidden@h")
    assert "hidden" not in repr(address) + str(address)
    assert str(address) == "mqtts://ann@h:8883"


@pytest.mark.parametrize(
    "url", ["", "h:1883", "http://h", "mqtt://", "mqtt://a:hidden@h:x", "mqtt://a:hidden@h/x"]
)
def test_what_is_not_an_address_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(AddressError, match="mqtt://host:port") as refusal:
        BrokerAddress.parse(url)
    assert "hidden" not in str(refusal.value)
