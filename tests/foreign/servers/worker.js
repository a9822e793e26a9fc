// A worker that registers with a hub of seaport: node worker.js HUB_PORT PORT
const http = require('http')
const ports = require('seaport').connect('127.0.0.1', Number(process.argv[2]))

http.createServer((request, response) => {
  let bytes = 0
  request.on('data', (piece) => { bytes += piece.length })
  request.on('end', () => {
    response.setHeader('Content-Type', 'application/json')
    response.end(JSON.stringify({ daisy: 0.9, rose: 0.1 }))
  })
}).listen(Number(process.argv[3]), '127.0.0.1', () => {
  ports.register({ role: 'flowers', version: '2.1.0', port: Number(process.argv[3]), protocol: 'form' })
})
