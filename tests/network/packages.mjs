// What the package managers of the languages ask a registry for: one package, in the form of each of them.

import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";

// An archive of files as they are, without compression.
function archive(files) {
  const [bodies, entries] = [[], []];
  let offset = 0;
  for (const [path, text] of Object.entries(files)) {
    const [name, data] = [Buffer.from(path), Buffer.from(text)];
    const fields = Buffer.alloc(26);
    fields.writeUInt16LE(20, 0);
    // The first day that the format knows: 1980-01-01.
    fields.writeUInt16LE(0x21, 8);
    fields.writeUInt32LE(crc32(data), 10);
    fields.writeUInt32LE(data.length, 14);
    fields.writeUInt32LE(data.length, 18);
    fields.writeUInt16LE(name.length, 22);
    bodies.push(Buffer.from("PK\x03\x04"), fields, name, data);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE((0o100644 << 16) >>> 0, 6);
    rest.writeUInt32LE(offset, 10);
    entries.push(Buffer.from("PK\x01\x02\x14\x03"), fields, rest, name);
    offset += 30 + name.length + data.length;
  }
  const index = Buffer.concat(entries);
  const end = Buffer.alloc(18);
  const count = Object.keys(files).length;
  end.writeUInt16LE(count, 4);
  end.writeUInt16LE(count, 6);
  end.writeUInt32LE(index.length, 8);
  end.writeUInt32LE(offset, 12);
  return Buffer.concat([...bodies, index, Buffer.from("PK\x05\x06"), end]);
}

const site = "https://allowed.test";
const version = "1.2.3";

const go = "module example.test/words\n\ngo 1.21\n";
const module = `example.test/words@v${version}`;

const composer = { name: "example/words", version, autoload: { files: ["words.php"] } };
const php = archive({
  "words/composer.json": JSON.stringify(composer),
  "words/words.php": "<?php function words() { return 'words of php'; }\n",
});
const dist = { type: "zip", url: `${site}/composer/words.zip`, shasum: createHash("sha1").update(php).digest("hex") };

const info = `words-${version}.dist-info`;
const python = archive({
  "words.py": "text = 'words of python'\n",
  [`${info}/METADATA`]: `Metadata-Version: 2.1\nName: words\nVersion: ${version}\n`,
  [`${info}/WHEEL`]: "Wheel-Version: 1.0\nGenerator: words\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
  [`${info}/RECORD`]: `words.py,,\n${info}/METADATA,,\n${info}/WHEEL,,\n${info}/RECORD,,\n`,
});
const wheel = `words-${version}-py3-none-any.whl`;

export default {
  "/package": JSON.stringify({
    name: "package",
    "dist-tags": { latest: version },
    versions: { [version]: { name: "package", version } },
  }),
  "/go/example.test/words/@v/list": `v${version}\n`,
  [`/go/example.test/words/@v/v${version}.info`]: JSON.stringify({ Version: `v${version}` }),
  [`/go/example.test/words/@v/v${version}.mod`]: go,
  [`/go/example.test/words/@v/v${version}.zip`]: archive({
    [`${module}/go.mod`]: go,
    [`${module}/words.go`]: 'package words\n\nconst Text = "words of go"\n',
  }),
  "/composer/packages.json": JSON.stringify({ packages: { "example/words": { [version]: { ...composer, dist } } } }),
  "/composer/words.zip": php,
  "/python/words/": `<a href="/python/${wheel}">${wheel}</a>\n`,
  [`/python/${wheel}`]: python,
};
