# Rendered from the profile at every boot; changes here are lost.
export HTTP_PROXY='http://press:example@proxy.example.com:3128'
export http_proxy='http://press:example@proxy.example.com:3128'
export HTTPS_PROXY='http://press:example@proxy.example.com:3128'
export https_proxy='http://press:example@proxy.example.com:3128'
export NO_PROXY='localhost,127.0.0.0/8,::1,press-3,10.42.0.0/16,10.43.0.0/16,10.44.0.1,.svc,.cluster.local,10.20.0.0/16,example.com'
export no_proxy='localhost,127.0.0.0/8,::1,press-3,10.42.0.0/16,10.43.0.0/16,10.44.0.1,.svc,.cluster.local,10.20.0.0/16,example.com'
