//! The balancer with real sockets on loopback addresses of its own.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const PORT: u16 = 24_790;

/// A server that says its name to everybody and then echoes; ends when dropped.
async fn server(address: &'static str) -> JoinSet<()> {
    let listener = TcpListener::bind((address, PORT)).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections.spawn(async move {
                let _ = stream.write_all(address.as_bytes()).await;
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    tasks
}

/// Which server answers through the balancer; `None` when it closes the connection.
async fn who(address: SocketAddr) -> Option<(TcpStream, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let mut name = [0; 11];
    stream.read_exact(&mut name).await.ok()?;
    Some((stream, String::from_utf8(name.to_vec()).ok()?))
}

async fn balancer(pool: &Arc<Pool>) -> Balancer {
    let listen = "127.0.0.1:0".parse().unwrap();
    let forwards = [Forward { listen, server_port: PORT }];
    let ask: Ask = Arc::new(|_| Box::pin(std::future::ready(Health::Ready)));
    Balancer::start(&forwards, Arc::clone(pool), ask).await.unwrap()
}

fn heard(answers: &[(&str, Health)]) -> Vec<(String, Health)> {
    answers.iter().map(|(name, health)| ((*name).to_owned(), *health)).collect()
}

#[test]
fn a_server_that_hangs_makes_way_for_one_that_serves() {
    use Health::{Ready, Silent, Unready};
    let pool = Pool::new(["a", "b", "c"], None);
    let connection = pool.succeeded("a");
    pool.judge(&heard(&[("a", Silent), ("b", Silent), ("c", Silent)]));
    assert!(!connection.is_cancelled(), "nobody answers: the fault may be here");
    pool.judge(&heard(&[("a", Silent), ("b", Unready), ("c", Ready)]));
    assert!(connection.is_cancelled());
    pool.healthy("a");
    assert_eq!(pool.candidates(), ["c", "a", "b"], "that it can be dialled is not enough");
    pool.judge(&heard(&[("a", Ready), ("b", Ready), ("c", Ready)]));
    assert_eq!(pool.candidates(), ["a", "b", "c"]);
}

#[test]
fn without_a_ready_server_those_that_answer_are_kept() {
    use Health::{Silent, Unready};
    let pool = Pool::new(["a", "b"], None);
    let connection = pool.succeeded("b");
    pool.judge(&heard(&[("a", Silent), ("b", Unready)]));
    assert!(!connection.is_cancelled());
    assert_eq!(pool.candidates(), ["b", "a"]);
}

#[tokio::test]
async fn one_server_is_active_until_it_dies_then_another_takes_over() {
    let (a, b) = (server("127.79.1.11").await, server("127.79.1.12").await);
    let pool = Arc::new(Pool::new(["127.79.1.11", "127.79.1.12"], None));
    let balancer = balancer(&pool).await;
    let address = balancer.addresses()[0];
    let (mut first, name) = who(address).await.unwrap();
    assert_eq!(name, "127.79.1.11");
    assert_eq!(who(address).await.unwrap().1, "127.79.1.11");
    first.write_all(b"x").await.unwrap();
    assert_eq!(first.read_u8().await.unwrap(), b'x');
    drop(a);
    // The connection to the dead server is closed, by its end or by the health check.
    assert!(matches!(first.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    loop {
        if let Some((_, name)) = who(address).await {
            assert_eq!(name, "127.79.1.12");
            break;
        }
    }
    assert_eq!(pool.active().as_deref(), Some("127.79.1.12"));
    balancer.stop().await;
    drop(b);
}

#[tokio::test]
async fn without_a_live_server_the_client_is_not_left_waiting() {
    let pool = Arc::new(Pool::new(["127.79.2.11"], Some("127.79.2.12")));
    let balancer = balancer(&pool).await;
    assert!(who(balancer.addresses()[0]).await.is_none());
}

#[tokio::test]
async fn the_default_is_used_when_all_listed_servers_are_gone() {
    let _default = server("127.79.3.99").await;
    let pool = Arc::new(Pool::new(["127.79.3.11"], Some("127.79.3.99")));
    let balancer = balancer(&pool).await;
    assert_eq!(who(balancer.addresses()[0]).await.unwrap().1, "127.79.3.99");
}

#[tokio::test]
async fn a_server_that_leaves_the_list_loses_its_connections() {
    let (_a, _b) = (server("127.79.4.11").await, server("127.79.4.12").await);
    let pool = Arc::new(Pool::new(["127.79.4.11"], None));
    let balancer = balancer(&pool).await;
    let (mut stream, _) = who(balancer.addresses()[0]).await.unwrap();
    pool.set_servers(&[]);
    assert_eq!(pool.servers(), ["127.79.4.11"], "an empty list is ignored");
    pool.set_servers(&["127.79.4.12".to_owned()]);
    assert!(matches!(stream.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    assert_eq!(who(balancer.addresses()[0]).await.unwrap().1, "127.79.4.12");
}

#[test]
fn the_list_survives_a_restart_but_not_another_registration_address() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lb.json");
    assert!(load(&path, "https://a:6443").is_empty());
    let saved = Saved {
        server_url: "https://a:6443".into(),
        server_addresses: vec!["10.0.0.1".into(), "10.0.0.2".into()],
    };
    save(&path, &saved).unwrap();
    assert_eq!(load(&path, "https://a:6443"), saved.server_addresses);
    assert!(load(&path, "https://b:6443").is_empty());
    std::fs::write(&path, "{ half").unwrap();
    assert!(load(&path, "https://a:6443").is_empty());
}
