// The lookup of the article that Fingerpost started from: a seaport hub that answers over HTTP.
// node hub.js HUB_PORT HTTP_PORT WORKER_HOST:PORT...
const http = require('http')
const seaport = require('seaport')

const [hubPort, httpPort, ...workers] = process.argv.slice(2)
const hub = seaport.createServer()
hub.listen(Number(hubPort), '127.0.0.1')
for (const worker of workers) {
  const [host, port] = worker.split(':')
  hub.register('worker', { host, port: Number(port) })
}

let turn = 0
http.createServer((request, response) => {
  hub.get('worker', (found) => {
    const worker = found[turn++ % found.length]
    response.end(`${worker.host}:${worker.port}\n`)
  })
}).listen(Number(httpPort), '127.0.0.1')
