// Reads a TUF repository with tuf-js, the client that npm uses.
//
//     read_tuf.js REPOSITORY STATE TARGET…
//
// As read_tuf.py.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { Updater } = require("tuf-js");

function serve(folder) {
  const server = http.createServer((request, response) => {
    const file = path.join(folder, path.normalize(new URL(request.url, "http://localhost").pathname));
    fs.readFile(file, (error, data) => {
      response.writeHead(error ? 404 : 200);
      response.end(data);
    });
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

async function main() {
  const [repository, state, ...targets] = process.argv.slice(2);
  const [metadataDir, targetDir] = ["metadata", "targets"].map((name) => path.join(state, name));
  [metadataDir, targetDir].forEach((folder) => fs.mkdirSync(folder, { recursive: true }));
  fs.copyFileSync(path.join(repository, "metadata/1.root.json"), path.join(metadataDir, "root.json"));
  const server = await serve(repository);
  const url = `http://127.0.0.1:${server.address().port}`;
  for (let client = 0; client < 2; client++) {
    const metadataBaseUrl = `${url}/metadata`;
    const updater = new Updater({ metadataDir, metadataBaseUrl, targetDir, targetBaseUrl: `${url}/targets` });
    await updater.refresh();
    for (const target of targets) {
      const info = await updater.getTargetInfo(target);
      if (!info) throw new Error(`no target ${target}`);
      const file = (await updater.findCachedTarget(info)) ?? (await updater.downloadTarget(info));
      const digest = crypto.createHash("sha256").update(fs.readFileSync(file)).digest("hex");
      if (client === 1) console.log(digest, target);
    }
    if (await updater.getTargetInfo("products/nothing/1/bundle")) throw new Error("a target that isn't there");
  }
  server.close();
  server.closeAllConnections?.();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
