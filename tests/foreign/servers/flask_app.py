# pyright: reportMissingImports=false
"""The article's service: an image by multipart, labels and scores as JSON."""

import io
import sys

from flask import Flask, jsonify, request
from PIL import Image, UnidentifiedImageError

app = Flask(__name__)


@app.get("/ping")
def ping():
    return "OK"


@app.post("/")
def classify():
    if "data" not in request.files:
        return jsonify(error="no file in the field data"), 400
    try:
        image = Image.open(io.BytesIO(request.files["data"].read())).convert("RGB")
    except UnidentifiedImageError as error:
        return jsonify(error=str(error)), 415
    red, green, blue = image.resize((1, 1)).tobytes()
    total = (red + green + blue) or 1
    return jsonify({"red": red / total, "green": green / total, "blue": blue / total})


app.run(host="127.0.0.1", port=int(sys.argv[1]), threaded=True)
