#include "launcher/sockets.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "launcher/cluster_secret.h"
#include "launcher/inherited.h"
#include "launcher/model_sizes.h"
#include "launcher/run_dir.h"

using namespace flotilla;

namespace {

namespace fs = std::filesystem;

PortRequest request(int port, const std::string& host = "127.0.0.1") {
  return {.host = host, .port = port, .flag = "--ports", .rank = 3};
}

int option(int fd, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  getsockopt(fd, SOL_SOCKET, name, &value, &size);
  return value;
}

StatusOr<InheritedFds> take(const std::string& text) {
  setenv(kInheritedFdsVariable, text.c_str(), 1);
  return take_inherited_fds();
}

std::string error_of(const std::string& text) {
  const auto fds = take(text);
  return fds.ok() ? "(no error)" : fds.status().message();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("BindPort.HoldsThePortAloneAndDoesNotListen") {
  const UniqueFd fd = bind_port(request(0)).value();
  CHECK(option(fd.get(), SO_ACCEPTCONN) == 0);
  CHECK(option(fd.get(), SO_REUSEPORT) == 0);
  CHECK((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  const int port = bound_port(fd.get()).value();
  const auto second = bind_port(request(port));
  CHECK(second.status().code() == StatusCode::kUnavailable);
  CHECK(contains(second.status().message(),
                 "port " + std::to_string(port) + " (--ports, rank 3) is busy"));
}

TEST_CASE("BindPort.NamesWhoHoldsABusyPort") {
  const UniqueFd fd = bind_port(request(0)).value();
  REQUIRE(start_listening(fd.get(), 1).ok());
  const int port = bound_port(fd.get()).value();
  CHECK(contains(holder_of_port(port), "(pid " + std::to_string(getpid()) + ")"));
  CHECK(contains(bind_port(request(port)).status().message(),
                 "listens there; stop that or choose another port"));
}

TEST_CASE("BindPort.AListenerElsewhereOnTheMachineCountsToo") {
  const UniqueFd fd = bind_port(request(0)).value();
  REQUIRE(start_listening(fd.get(), 1).ok());
  CHECK_FALSE(bind_port(request(bound_port(fd.get()).value(), "0.0.0.0")).ok());
}

TEST_CASE("BindPort.WrongAddressesAreCallersMistakes") {
  CHECK(bind_port(request(0, "192.0.2.1")).status().code() == StatusCode::kInvalidArgument);
  CHECK(contains(bind_port(request(0, "192.0.2.1")).status().message(),
                 "192.0.2.1 is no address of this machine"));
  CHECK(contains(bind_port(request(0, "no such host")).status().message(),
                 "cannot resolve the address 'no such host'"));
}

TEST_CASE("BindPort.TakesIpv6") {
  const auto fd = bind_port(request(0, "::1"));
  if (fd.ok())
    CHECK(bound_port(fd->get()).value() > 0);  // a machine without IPv6 has no such address
}

TEST_CASE("StartListening.LetsConnectionsOfADeadServerNotHoldThePort") {
  UniqueFd listener = bind_port(request(0)).value();
  CHECK(option(listener.get(), SO_REUSEADDR) == 0);
  REQUIRE(start_listening(listener.get(), 4).ok());
  CHECK(option(listener.get(), SO_REUSEADDR) == 1);
  const int port = bound_port(listener.get()).value();
  const UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
  REQUIRE(connect(client.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  UniqueFd served(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  served.reset();  // the server side closes first: FIN_WAIT, then TIME_WAIT
  listener.reset();
  CHECK(bind_port(request(port)).ok());
}

TEST_CASE("TakeInheritedFds.TakesSocketsAndSecretOnce") {
  const std::string secret(32, 'x');
  UniqueFd http = bind_port(request(0)).value();
  UniqueFd queue = bind_port(request(0)).value();
  UniqueFd memfd = make_secret_memfd(secret).value();
  for (const UniqueFd* fd : {&http, &queue, &memfd})
    REQUIRE(set_close_on_exec(fd->get(), false).ok());
  const int number = http.get();
  const auto fds =
      take("http=" + std::to_string(http.release()) + ",queue=" + std::to_string(queue.release()) +
           ",clock_secret=" + std::to_string(memfd.release()));
  REQUIRE_MESSAGE(fds.ok(), fds.status().message());
  CHECK(fds->http.get() == number);
  CHECK_FALSE(fds->metrics);
  CHECK(fds->queue);
  CHECK(fds->cluster_secret == secret);
  CHECK((fcntl(number, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(std::getenv(kInheritedFdsVariable) == nullptr);
  CHECK_FALSE(take_inherited_fds()->http);
}

TEST_CASE("TakeInheritedFds.RefusesWhatIsNoSuchDescriptor") {
  CHECK(contains(error_of("http"), "expected name=number, got 'http'"));
  CHECK(contains(error_of("http=1"), "expected name=number, got 'http=1'"));
  CHECK(contains(error_of("http=x"), "expected name=number, got 'http=x'"));
  CHECK(contains(error_of("http=900000"), "descriptor http=900000 is not open"));
  CHECK(contains(error_of("http=900000"), "unset it to start api_server by hand"));
  const UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const std::string number = std::to_string(file.get());
  CHECK(contains(error_of("other=" + number), "unknown name 'other'"));
  CHECK(contains(error_of("http=" + std::to_string(::dup(file.get()))), "is no bound TCP socket"));
  CHECK(contains(error_of("clock_secret=" + std::to_string(::dup(file.get()))),
                 "holds 0 bytes, expected 32"));
  CHECK(contains(error_of("clock_secret=" + number + ",queue=" + number), "expected 32"));
}

TEST_CASE("TakeInheritedFds.RefusesDoubles") {
  UniqueFd a = bind_port(request(0)).value();
  const std::string number = std::to_string(a.get());
  CHECK(contains(error_of("http=" + number + ",queue=" + number), "is named twice"));
  static_cast<void>(a.release());  // the first entry owned it
}

TEST_CASE("ClusterSecret.IsTheHashOfAnyTextOfSixteenBytes") {
  const Environment variable = {{kClusterSecretVariable, "0123456789abcdef"}};
  const std::string from_variable = find_cluster_secret("", variable).value();
  CHECK(from_variable.size() == kClusterSecretBytes);
  const std::string path =
      fs::temp_directory_path() / ("flotilla-secret-" + std::to_string(getpid()));
  std::ofstream(path) << "0123456789abcdef\n";
  CHECK(find_cluster_secret(path, {}).value() == from_variable);
  std::ofstream(path) << "short\n";
  CHECK(contains(find_cluster_secret(path, variable).status().message(),
                 "got 5 bytes, expected at least 16"));
  fs::remove(path);
  CHECK(contains(find_cluster_secret(path, variable).status().message(),
                 "--cluster-secret-file: cannot open"));
  CHECK(find_cluster_secret("", {}).value() != find_cluster_secret("", {}).value());
}

TEST_CASE("SecretMemfd.CanBeReadByManyAndWrittenByNone") {
  const UniqueFd fd = make_secret_memfd(std::string(32, 'k')).value();
  for (int i = 0; i < 3; ++i) CHECK(read_secret_memfd(fd.get()).value() == std::string(32, 'k'));
  CHECK(::write(fd.get(), "x", 1) < 0);
}

TEST_CASE("RunDir.IsPrivateAndGoneAtTheEnd") {
  const std::string base =
      fs::temp_directory_path() / ("flotilla-base-" + std::to_string(getpid()));
  fs::create_directory(base);
  const Environment environment = {{"XDG_RUNTIME_DIR", base}};
  std::string path;
  {
    const auto dir = RunDir::create(environment);
    REQUIRE(dir.ok());
    path = dir->path();
    CHECK(path.starts_with(base + "/flotilla-" + std::to_string(getpid()) + "-"));
    struct stat status {};
    REQUIRE(stat(path.c_str(), &status) == 0);
    CHECK((status.st_mode & 0777) == 0700);
    std::ofstream(path + "/clock.sock") << "x";
    // One that is in use is left alone by the next launcher; one that nobody locks is cleared away.
    fs::create_directory(base + "/flotilla-1-dead");
    std::ofstream(base + "/flotilla-1-dead/lock") << "";
    fs::create_directory(base + "/flotilla-1-fresh");  // being made right now: no lock yet
    const auto next = RunDir::create(environment);
    REQUIRE(next.ok());
    CHECK(fs::exists(path));
    CHECK_FALSE(fs::exists(base + "/flotilla-1-dead"));
    CHECK(fs::exists(base + "/flotilla-1-fresh"));
  }
  CHECK_FALSE(fs::exists(path));
  fs::remove_all(base);
}

TEST_CASE("RunDir.FallsBackToTmp") {
  CHECK(RunDir::pattern({}) == "/tmp/flotilla-<pid>-<random>");
  CHECK(RunDir::pattern({{"XDG_RUNTIME_DIR", "/nonexistent"}}).starts_with("/tmp/"));
  CHECK(RunDir::pattern({{"XDG_RUNTIME_DIR", "/" + std::string(80, 'x')}}).starts_with("/tmp/"));
}

TEST_CASE("ModelSizes.TellsExpertsFromTheRest") {
  const std::string dir =
      fs::temp_directory_path() / ("flotilla-model-" + std::to_string(getpid()));
  fs::create_directory(dir);
  CHECK(read_model_sizes(dir).status().code() == StatusCode::kNotFound);
  const auto write = [&](const std::string& name, const std::string& head) {
    const uint64_t size = head.size();
    std::ofstream file(dir + "/" + name, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&size), sizeof size);
    file << head;
  };
  write(
      "a.safetensors",
      R"({"__metadata__":{"format":"pt"},"m.experts.0.w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
      R"("m.shared_experts.w":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})");
  write("b.safetensors", R"({"m.experts.1.w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})");
  std::ofstream(dir + "/config.json")
      << R"({"num_hidden_layers":3,"num_attention_heads":8,"num_key_value_heads":2,"hidden_size":64})";
  const auto sizes = read_model_sizes(dir);
  REQUIRE_MESSAGE(sizes.ok(), sizes.status().message());
  CHECK(sizes->expert_bytes == 16);
  CHECK(sizes->other_bytes == 4);
  CHECK(sizes->kv_elements_per_token == 2 * 3 * 2 * 8);
  write("c.safetensors", "not json");
  CHECK(contains(read_model_sizes(dir).status().message(), "c.safetensors is no safetensors file"));
  write("c.safetensors", R"({"w":{"data_offsets":[8,0]}})");
  CHECK(contains(read_model_sizes(dir).status().message(), "tensor w has no data_offsets"));
  std::ofstream(dir + "/c.safetensors", std::ios::binary) << std::string(8, '\xff');
  CHECK(contains(read_model_sizes(dir).status().message(), "has a head of"));
  fs::remove_all(dir);
}
