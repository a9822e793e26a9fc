// A hub of seaport: node hub.js PORT
require('seaport').createServer().listen(Number(process.argv[2]), '127.0.0.1')
