// Sends one UDP datagram from port to same port, as a node of the udp backend does: send-datagram.ts ADDRESS PORT HEX.
import { createSocket } from 'node:dgram'

const [address = '', port = '', payload = ''] = process.argv.slice(2)
const socket = createSocket('udp4')
socket.bind(Number(port), () =>
  socket.send(Buffer.from(payload, 'hex'), Number(port), address, () => {
    process.stdout.write('sent\n')
    socket.close()
  })
)
