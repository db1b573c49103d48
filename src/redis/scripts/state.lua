-- KEYS: 1 state, 2 queue, 3 alive, 4 hold, 5 who, 6 fence, 7 witness of all locks of a namespace.
-- Every script begins with this file. The state is one text:
-- '<protocol> <kind> <limit> <lease>;<run id of the server or ->;<last tick> <until> <used> <due>
-- <crashed> <drops> <sole>'
local TTL = 86400
local state, time = redis.call('GET', KEYS[1]), redis.call('TIME')
local now = time[1] * 1000000 + time[2]
