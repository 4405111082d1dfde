"""udsoncan's requests and responses, made without its searches.

`Request.from_payload` and `Response.from_payload` go through all of udsoncan's services, and a response through all
members of a class for the name of its code, with every message.  What comes out here is the same.
"""

from __future__ import annotations

from functools import cache

from udsoncan.BaseService import BaseService
from udsoncan.Request import Request
from udsoncan.Response import Response
from udsoncan.ResponseCode import ResponseCode

_service_of = cache(BaseService.from_request_id)
_service_answering = cache(BaseService.from_response_id)
_name_of = cache(ResponseCode.get_name)
_is_negative = cache(ResponseCode.is_negative)


def parse_request(payload: bytes) -> Request:
    """As `Request.from_payload`, for at least one byte."""
    service = _service_of(payload[0])
    request = Request(service)
    if service is None:
        return request
    data_at = 1
    if service.use_subfunction():
        data_at = 2
        if len(payload) > 1:
            request.subfunction = payload[1] & 0x7F
            request.suppress_positive_response = payload[1] >= 0x80
    if len(payload) > data_at:
        request.data = payload[data_at:]
    return request


def parse_positive_response(payload: bytes) -> Response:
    """As `Response.from_payload`, for at least one byte, and for all but negative responses."""
    service = _service_answering(payload[0])
    response = make_response(service, ResponseCode.PositiveResponse, payload[1:])
    response.original_payload = payload
    if service is None:
        response.valid, response.invalid_reason = False, "Payload first byte is not a known service response ID."
    elif len(payload) < 2 and service.has_response_data():
        response.valid, response.invalid_reason = False, "Payload must be at least 2 bytes long (service and response)"
    return response


def make_response(service: type[BaseService] | None, code: int, data: bytes = b"") -> Response:
    """As `Response(service, code, data)`."""
    response = Response(service, data=data)
    response.code, response.code_name = code, _name_of(code)
    response.positive = not _is_negative(code)
    response.valid, response.invalid_reason = service is not None, ""
    return response
