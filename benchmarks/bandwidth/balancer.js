// One balancing node, as in the article that Fingerpost started from: http-proxy, each worker in turn.
// node balancer.js HOST PORT WORKER_HOST:PORT...
const http = require('http')
const { createProxyServer } = require('http-proxy')

const [host, port, ...workers] = process.argv.slice(2)
const proxy = createProxyServer({ agent: new http.Agent({ keepAlive: true }) })
proxy.on('error', (error, request, response) => response.writeHead(502).end(error.message))

let turn = 0
http.createServer((request, response) => {
  proxy.web(request, response, { target: `http://${workers[turn++ % workers.length]}` })
}).listen(Number(port), host)
